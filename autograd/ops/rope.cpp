#include "autograd/ops/op.h"

namespace regla {
namespace {

/// A rotation: its transpose, the backward pass, is the rotation by the opposite angle.
struct Rope : Op {
  Rotation rotation;
  explicit Rope(Rotation by) : rotation(std::move(by)) {}
  const char* name() const override { return "rope"; }

  Tensors forward(const Tensors& in) override {
    Tensor y = Tensor::empty_like(in[0]);
    kernels_of(y).rope({.x = in[0], .rotation = rotation, .inverse = false}, Sink{y});
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(d_out[0]).rope({.x = d_out[0], .rotation = rotation, .inverse = true},
                              d_in[0]->sink(d_out[0]));
  }
};

}  // namespace

Var rope(const Var& x, const Rotation& rotation) {
  check_rank("rope", "x", x, 4);
  check_rotation("rope", x, rotation);
  return rotation.turns() ? apply(Rope(rotation), {x})[0] : x;
}

}  // namespace regla
