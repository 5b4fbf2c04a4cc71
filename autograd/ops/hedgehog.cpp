#include "autograd/ops/elementwise.h"

namespace regla {

Var hedgehog(const Var& z, bool joint) {
  check_inner("hedgehog", "z", z);
  using Hedgehog = FromOutput<&KernelTable::hedgehog, &KernelTable::hedgehog_backward, 2, bool>;
  return apply(Hedgehog(joint), {z})[0];
}

}  // namespace regla
