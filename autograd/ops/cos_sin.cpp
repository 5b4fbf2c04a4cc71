#include "autograd/ops/elementwise.h"

namespace regla {

Var cos_sin(const Var& z, std::optional<DType> out) {
  check_inner("cos_sin", "z", z);
  using CosSin = FromOutput<&KernelTable::cos_sin, &KernelTable::cos_sin_backward, 2>;
  return apply(CosSin(type_of_output("cos_sin", out, z)), {z})[0];
}

}  // namespace regla
