#include "autograd/ops/elementwise.h"

namespace regla {

Var softmax(const Var& x) {
  check_float("softmax", "x", x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[softmax] expected a non-empty inner axis, got ",
        x.shape());
  return apply(FromOutput<&KernelTable::softmax, &KernelTable::softmax_backward, 1>{}, {x})[0];
}

}  // namespace regla
