#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Softmax : Op {
  DType from, out;
  Tensor y;
  Softmax(DType in, DType type) : from(in), out(type) {}
  const char* name() const override { return "softmax"; }

  Tensors forward(const Tensors& in) override {
    y = Tensor::empty(in[0].shape(), out, in[0].device());
    kernels_of(y).softmax(in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(y).softmax_backward(y, d_out[0], d_in[0]->sink(y.shape(), from, y.device()));
  }
};

}  // namespace

Var softmax(const Var& x, std::optional<DType> out) {
  check_float("softmax", "x", x);
  check(x.value.rank() >= 1 && x.dim(-1) > 0, "[softmax] expected a non-empty inner axis, got ",
        x.shape());
  return apply(Softmax(x.value.dtype(), type_of_output("softmax", out, x)), {x})[0];
}

}  // namespace regla
