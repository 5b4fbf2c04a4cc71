#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Hedgehog : Op {
  bool joint;
  Tensor y;
  explicit Hedgehog(bool one_softmax) : joint(one_softmax) {}
  const char* name() const override { return "hedgehog"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& z = in[0];
    y = Tensor::empty(z.shape().drop_last().append(2 * z.dim(-1)), z.dtype(), z.device());
    kernels_of(y).hedgehog(z, joint, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Shape z = y.shape().drop_last().append(y.dim(-1) / 2);
    kernels_of(y).hedgehog_backward(y, joint, d_out[0], d_in[0]->sink(z, y.dtype(), y.device()));
  }
};

}  // namespace

Var hedgehog(const Var& z, bool joint) {
  check_inner("hedgehog", "z", z);
  return apply(Hedgehog(joint), {z})[0];
}

}  // namespace regla
