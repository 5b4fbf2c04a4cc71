#include "autograd/ops/op.h"

namespace regla {
namespace {

struct CosSin : Op {
  Tensor y;
  const char* name() const override { return "cos_sin"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& z = in[0];
    y = Tensor::empty(z.shape().drop_last().append(2 * z.dim(-1)), z.dtype(), z.device());
    kernels_of(y).cos_sin(z, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Shape z = y.shape().drop_last().append(y.dim(-1) / 2);
    kernels_of(y).cos_sin_backward(y, d_out[0], d_in[0]->sink(z, y.dtype(), y.device()));
  }
};

}  // namespace

Var cos_sin(const Var& z) {
  check_inner("cos_sin", "z", z);
  return apply(CosSin{}, {z})[0];
}

}  // namespace regla
