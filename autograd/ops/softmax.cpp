#include "autograd/ops/elementwise.h"

namespace regla {

Var softmax(const Var& x, std::optional<DType> out) {
  check_float("softmax", "x", x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[softmax] expected a non-empty inner axis, got ",
        x.shape());
  using Softmax = FromOutput<&KernelTable::softmax, &KernelTable::softmax_backward, 1>;
  return apply(Softmax(type_of_output("softmax", out, x)), {x})[0];
}

}  // namespace regla
