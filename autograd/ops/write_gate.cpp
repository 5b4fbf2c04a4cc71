#include "autograd/ops/elementwise.h"

namespace regla {

Var write_gate(const Var& x, const Var& log_g) {
  check_rank("write_gate", "x", x, 4);
  check(x.dim(3) > 0, "[write_gate] expected a non-empty inner axis, got ", x.shape());
  const bool per_head = log_g.defined() && log_g.value.rank() == 3;
  check_either("write_gate", "log_g", log_g, per_head ? x.shape().drop_last() : x.shape(),
               x.value.dtype());
  using WriteGate = FromTwoInputs<&KernelTable::write_gate, &KernelTable::write_gate_backward>;
  return apply(WriteGate{}, {x, log_g})[0];
}

}  // namespace regla
