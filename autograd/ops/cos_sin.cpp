#include "autograd/ops/op.h"

namespace regla {
namespace {

struct CosSin : Op {
  DType from, out;
  Tensor y;
  CosSin(DType in, DType type) : from(in), out(type) {}
  const char* name() const override { return "cos_sin"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& z = in[0];
    y = Tensor::empty(z.shape().drop_last().append(2 * z.dim(-1)), out, z.device());
    kernels_of(y).cos_sin(z, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Shape z = y.shape().drop_last().append(y.dim(-1) / 2);
    kernels_of(y).cos_sin_backward(y, d_out[0], d_in[0]->sink(z, from, y.device()));
  }
};

}  // namespace

Var cos_sin(const Var& z, std::optional<DType> out) {
  check_inner("cos_sin", "z", z);
  return apply(CosSin(z.value.dtype(), type_of_output("cos_sin", out, z)), {z})[0];
}

}  // namespace regla
