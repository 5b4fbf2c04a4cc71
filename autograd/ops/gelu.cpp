#include "autograd/ops/op.h"

namespace regla {
namespace {

struct GeluOp : Op {
  bool tanh;
  Tensor x;
  explicit GeluOp(Gelu kind) : tanh(kind == Gelu::Tanh) {}
  const char* name() const override { return "gelu"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    Tensor y = Tensor::empty_like(x);
    kernels_of(x).gelu(x, tanh, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(x).gelu_backward(x, tanh, d_out[0], d_in[0]->sink(x));
  }

  Tensor* kept(size_t) override { return &x; }
  bool is_cheap() const override { return true; }
};

}  // namespace

Var gelu(const Var& x, Gelu kind) {
  check_float("gelu", "x", x);
  return apply(GeluOp(kind), {x})[0];
}

}  // namespace regla
