#include "autograd/ops/elementwise.h"

namespace regla {

Var relu(const Var& x) {
  check_float("relu", "x", x);
  return apply(FromOutput<&KernelTable::relu, &KernelTable::relu_backward, 1>{}, {x})[0];
}

Var elu_plus_one(const Var& x) {
  check_float("elu_plus_one", "x", x);
  using EluPlusOne = FromOutput<&KernelTable::elu_plus_one, &KernelTable::elu_plus_one_backward, 1>;
  return apply(EluPlusOne{}, {x})[0];
}

}  // namespace regla
