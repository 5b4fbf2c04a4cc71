#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Hedgehog : Op {
  bool joint;
  DType from, out;
  Tensor y;
  Hedgehog(bool one_softmax, DType in, DType type) : joint(one_softmax), from(in), out(type) {}
  const char* name() const override { return "hedgehog"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& z = in[0];
    y = Tensor::empty(z.shape().drop_last().append(2 * z.dim(-1)), out, z.device());
    kernels_of(y).hedgehog(z, joint, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Shape z = y.shape().drop_last().append(y.dim(-1) / 2);
    kernels_of(y).hedgehog_backward(y, joint, d_out[0], d_in[0]->sink(z, from, y.device()));
  }
};

}  // namespace

Var hedgehog(const Var& z, bool joint, std::optional<DType> out) {
  check_inner("hedgehog", "z", z);
  return apply(Hedgehog(joint, z.value.dtype(), type_of_output("hedgehog", out, z)), {z})[0];
}

}  // namespace regla
