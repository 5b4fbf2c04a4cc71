#include "autograd/ops/op.h"

namespace regla {
namespace {

/// y = x z sigma(z)
struct SwishGate : Op {
  Tensor x, z;
  const char* name() const override { return "swish_gate"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    z = in[1];
    Tensor y = Tensor::empty_like(x);
    kernels_of(y).swish_gate(x, z, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(x).swish_gate_backward(x, z, d_out[0], d_in[0]->sink(x), d_in[1]->sink(z));
  }

  Tensor* kept(size_t input) override { return input == 0 ? &x : &z; }
  bool is_cheap() const override { return true; }
};

}  // namespace

Var swish_gate(const Var& x, const Var& z) {
  check_float("swish_gate", "x", x);
  check_same("swish_gate", "z", z, x.shape(), x.value.dtype());
  return apply(SwishGate{}, {x, z})[0];
}

}  // namespace regla
