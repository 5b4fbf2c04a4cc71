#include "autograd/ops/elementwise.h"

namespace regla {

Var sigmoid(const Var& z) {
  check_float("sigmoid", "z", z);
  return apply(FromInput<&KernelTable::sigmoid, &KernelTable::sigmoid_backward>{}, {z})[0];
}

Var log_sigmoid(const Var& z) {
  check_float("log_sigmoid", "z", z);
  return apply(FromInput<&KernelTable::log_sigmoid, &KernelTable::log_sigmoid_backward>{}, {z})[0];
}

Var refined_gate(const Var& z_g, const Var& z_r) {
  check_float("refined_gate", "z_g", z_g);
  check_same("refined_gate", "z_r", z_r, z_g.shape(), z_g.value.dtype());
  using RefinedGate =
      FromTwoInputs<&KernelTable::refined_gate, &KernelTable::refined_gate_backward>;
  return apply(RefinedGate{}, {z_g, z_r})[0];
}

}  // namespace regla
