#include "autograd/ops/elementwise.h"

namespace regla {

Var hedgehog(const Var& z, bool joint, std::optional<DType> out) {
  check_inner("hedgehog", "z", z);
  using Hedgehog = FromOutput<&KernelTable::hedgehog, &KernelTable::hedgehog_backward, 2, bool>;
  return apply(Hedgehog(joint, type_of_output("hedgehog", out, z)), {z})[0];
}

}  // namespace regla
