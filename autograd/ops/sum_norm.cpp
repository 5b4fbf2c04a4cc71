#include "autograd/ops/op.h"

namespace regla {
namespace {

struct AppendOne : Op {
  Shape from;
  const char* name() const override { return "append_one"; }

  Tensors forward(const Tensors& in) override {
    from = in[0].shape();
    Tensor y = Tensor::empty(from.drop_last().append(from[-1] + 1), in[0].dtype(), in[0].device());
    kernels_of(y).append_one(in[0], y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& d_y = d_out[0];
    kernels_of(d_y).append_one_backward(d_y, d_in[0]->sink(from, d_y.device()));
  }
};

struct SumNorm : Op {
  bool changes_sign;
  Tensor o, y;
  explicit SumNorm(bool features_change_sign) : changes_sign(features_change_sign) {}
  const char* name() const override { return "sum_norm"; }

  Tensors forward(const Tensors& in) override {
    o = in[0];
    y = Tensor::empty(o.shape().drop_last().append(o.dim(-1) - 1), o.dtype(), o.device());
    kernels_of(o).sum_norm(o, changes_sign, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(o).sum_norm_backward(o, changes_sign, y, d_out[0], d_in[0]->sink(o));
  }
};

}  // namespace

Var append_one(const Var& v) {
  check_inner("append_one", "v", v);
  return apply(AppendOne{}, {v})[0];
}

Var sum_norm(const Var& o, bool changes_sign) {
  check_inner("sum_norm", "o", o);
  check(o.dim(-1) >= 2, "[sum_norm] expected a value column and the normaliser's, got ", o.shape());
  return apply(SumNorm(changes_sign), {o})[0];
}

}  // namespace regla
