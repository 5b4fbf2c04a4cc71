#include "autograd/ops/elementwise.h"

namespace regla {

Var swish_gate(const Var& x, const Var& z) {
  check_float("swish_gate", "x", x);
  check_same("swish_gate", "z", z, x.shape(), x.value.dtype());
  using SwishGate = FromTwoInputs<&KernelTable::swish_gate, &KernelTable::swish_gate_backward>;
  return apply(SwishGate{}, {x, z})[0];
}

}  // namespace regla
