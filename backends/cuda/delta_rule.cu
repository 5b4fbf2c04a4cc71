#include "backends/cuda/cells.cuh"
#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/kernels.h"
#include "core/recurrences/delta_rule.h"

namespace regla::cuda {

void delta_rule(const DeltaRuleArgs& args, RecurrenceResult& result) {
  if (takes_chunks(args)) return delta_rule_chunks(args, result);
  run_cell<recurrence::DeltaRule>(cell_args(args), result);
}

void delta_rule_step(const DeltaRuleArgs& args, Tensor o) {
  RecurrenceResult result = {o, args.state, {}};
  run_cell<recurrence::DeltaRule>(cell_args(args), result);
}

}  // namespace regla::cuda
