#include "autograd/ops/elementwise.h"

namespace regla {

Var sigmoid(const Var& z) {
  check_float("sigmoid", "z", z);
  return apply(FromInput<&KernelTable::sigmoid, &KernelTable::sigmoid_backward>{}, {z})[0];
}

Var log_sigmoid(const Var& z, std::optional<DType> out) {
  check_float("log_sigmoid", "z", z);
  using LogSigmoid = FromInput<&KernelTable::log_sigmoid, &KernelTable::log_sigmoid_backward>;
  return apply(LogSigmoid(type_of_output("log_sigmoid", out, z)), {z})[0];
}

Var refined_gate(const Var& z_g, const Var& z_r, std::optional<DType> out) {
  check_float("refined_gate", "z_g", z_g);
  check_same("refined_gate", "z_r", z_r, z_g.shape(), z_g.value.dtype());
  using RefinedGate =
      FromTwoInputs<&KernelTable::refined_gate, &KernelTable::refined_gate_backward>;
  return apply(RefinedGate(type_of_output("refined_gate", out, z_g)), {z_g, z_r})[0];
}

}  // namespace regla
