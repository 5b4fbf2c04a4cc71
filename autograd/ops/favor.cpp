#include "autograd/ops/op.h"

namespace regla {
namespace {

/// y = z - |x|^2 / 2
struct FavorExponent : Op {
  Tensor x;
  const char* name() const override { return "favor_exponent"; }

  Tensors forward(const Tensors& in) override {
    x = in[1];
    Tensor y = Tensor::empty_like(in[0]);
    kernels_of(y).favor_exponent(in[0], x, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    if (d_in[1]->wanted()) {
      kernels_of(x).favor_exponent_backward(x, d_out[0], d_in[1]->sink(x));
    }
    d_in[0]->give(std::move(d_out[0]));
  }
};

}  // namespace

Var favor_exponent(const Var& z, const Var& x) {
  check_rank("favor_exponent", "z", z, 4);
  check_rank("favor_exponent", "x", x, 4);
  check(z.dim(3) > 0 && x.dim(3) > 0, "[favor_exponent] expected non-empty inner axes, got ",
        z.shape(), " and ", x.shape());
  check_sum("favor_exponent", "z", z, z.shape(), z.value.dtype());
  check_either("favor_exponent", "x", x, {z.dim(0), z.dim(1), z.dim(2), x.dim(3)}, z.value.dtype());
  return apply(FavorExponent{}, {z, x})[0];
}

}  // namespace regla
