#include "autograd/ops/elementwise.h"

namespace regla {

Var cos_sin(const Var& z) {
  check_inner("cos_sin", "z", z);
  return apply(FromOutput<&KernelTable::cos_sin, &KernelTable::cos_sin_backward, 2>{}, {z})[0];
}

}  // namespace regla
