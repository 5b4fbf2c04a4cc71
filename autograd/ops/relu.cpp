#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Relu : Op {
  Tensor y;
  const char* name() const override { return "relu"; }

  Tensors forward(const Tensors& in) override {
    y = Tensor::empty_like(in[0]);
    kernels_of(y).relu(in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(y).relu_backward(y, d_out[0], d_in[0]->sink(y));
  }
};

struct EluPlusOne : Op {
  Tensor y;
  const char* name() const override { return "elu_plus_one"; }

  Tensors forward(const Tensors& in) override {
    y = Tensor::empty_like(in[0]);
    kernels_of(y).elu_plus_one(in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(y).elu_plus_one_backward(y, d_out[0], d_in[0]->sink(y));
  }
};

}  // namespace

Var relu(const Var& x) {
  check_float("relu", "x", x);
  return apply(Relu{}, {x})[0];
}

Var elu_plus_one(const Var& x) {
  check_float("elu_plus_one", "x", x);
  return apply(EluPlusOne{}, {x})[0];
}

}  // namespace regla
