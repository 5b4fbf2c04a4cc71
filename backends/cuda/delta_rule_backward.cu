#include "backends/cuda/cells.cuh"
#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/kernels.h"
#include "core/recurrences/delta_rule.h"

namespace regla::cuda {

void delta_rule_backward(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                         const DeltaRuleGradients& gradients) {
  RecurrenceResult states = forward;
  if (takes_chunks(args)) {
    if (are_aligned<kWidest>(gradients.d_o, gradients.d_q.tensor, gradients.d_k.tensor,
                             gradients.d_v.tensor, gradients.d_state0.tensor)) {
      return delta_rule_backward_chunks(args, forward, gradients);
    }
    states.kept = Tensor::empty(forward.kept.shape(), DType::F32, forward.kept.device());
    convert(forward.kept, states.kept);
  }
  reverse_cell<recurrence::DeltaRule>(cell_args(args), states, cell_gradients(gradients));
}

}  // namespace regla::cuda
