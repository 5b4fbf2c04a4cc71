#include "backends/cuda/cells.cuh"
#include "backends/cuda/kernels.h"
#include "core/recurrences/delta_rule.h"

namespace regla::cuda {

void delta_rule_backward(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                         const DeltaRuleGradients& gradients) {
  reverse_cell<recurrence::DeltaRule>(cell_args(args), forward, cell_gradients(gradients));
}

}  // namespace regla::cuda
