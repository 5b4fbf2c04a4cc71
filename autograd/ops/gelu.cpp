#include "autograd/ops/elementwise.h"

namespace regla {

Var gelu(const Var& x, Gelu kind) {
  check_float("gelu", "x", x);
  using GeluOp = FromInput<&KernelTable::gelu, &KernelTable::gelu_backward, bool>;
  return apply(GeluOp(kind == Gelu::Tanh), {x})[0];
}

}  // namespace regla
