#include "autograd/ops/op.h"

namespace regla {
namespace {

struct Dpfp : Op {
  int64_t nu;
  Tensor x, y;
  explicit Dpfp(int64_t rolls) : nu(rolls) {}
  const char* name() const override { return "dpfp"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    y = Tensor::empty(x.shape().drop_last().append(2 * nu * x.dim(-1)), x.dtype(), x.device());
    kernels_of(x).dpfp(x, nu, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(x).dpfp_backward(x, nu, y, d_out[0], d_in[0]->sink(x));
  }
};

}  // namespace

Var dpfp(const Var& x, int64_t nu) {
  check_inner("dpfp", "x", x);
  check(nu >= 1 && nu < 2 * x.dim(-1), "[dpfp] expected nu from 1 to ", 2 * x.dim(-1) - 1, " for ",
        x.dim(-1), " features, got ", nu);
  return apply(Dpfp(nu), {x})[0];
}

}  // namespace regla
