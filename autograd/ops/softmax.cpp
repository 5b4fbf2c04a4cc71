#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Softmax : Op {
  Tensor y;
  const char* name() const override { return "softmax"; }

  Tensors forward(const Tensors& in) override {
    y = Tensor::empty_like(in[0]);
    kernels_of(y).softmax(in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(y).softmax_backward(y, d_out[0], d_in[0]->sink(y));
  }
};

}  // namespace

Var softmax(const Var& x) {
  check_float("softmax", "x", x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[softmax] expected a non-empty inner axis, got ",
        x.shape());
  return apply(Softmax{}, {x})[0];
}

}  // namespace regla
