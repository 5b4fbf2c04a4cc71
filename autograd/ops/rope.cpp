#include "autograd/ops/op.h"

namespace regla {
namespace {

/// A rotation: its transpose, the backward pass, is the rotation by the opposite angle.
struct Rope : Op {
  RopeArgs args;
  Rope(const Tensor& positions, int64_t rotary, double base)
      : args{{}, positions, rotary, base, false} {}
  const char* name() const override { return "rope"; }

  Tensors forward(const Tensors& in) override {
    Tensor y = Tensor::empty_like(in[0]);
    RopeArgs forward_args = args;
    forward_args.x = in[0];
    kernels_of(y).rope(forward_args, Sink{y});
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    RopeArgs backward_args = args;
    backward_args.x = d_out[0];
    backward_args.inverse = true;
    kernels_of(d_out[0]).rope(backward_args, d_in[0]->sink(d_out[0]));
  }
};

}  // namespace

Var rope(const Var& x, const Tensor& positions, int64_t rotary, double base) {
  check_rank("rope", "x", x, 4);
  check_indices("rope", "positions", positions, {x.dim(0), x.dim(1)});
  check(rotary >= 0 && rotary % 2 == 0 && rotary <= x.dim(3),
        "[rope] expected an even number of rotary features up to ", x.dim(3), ", got ", rotary);
  return rotary == 0 ? x : apply(Rope(positions, rotary, base), {x})[0];
}

}  // namespace regla
