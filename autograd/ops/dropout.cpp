#include "autograd/ops/dropout.h"

namespace regla {
namespace {

/// y = mask * x (+ residual, then of the type of sums). The mask is not kept: backward draws the
/// same numbers again.
struct Dropout : Op {
  DropoutArgs drop;  // of no tensor
  explicit Dropout(DropoutArgs args) : drop(std::move(args)) {}
  const char* name() const override { return "dropout"; }

  DropoutArgs of(const Tensor& x, const Tensor& residual) const {
    DropoutArgs args = drop;
    args.x = x;
    args.residual = residual;
    return args;
  }

  Tensors forward(const Tensors& in) override {
    const DType from = in[0].dtype();
    Tensor y = Tensor::empty(in[0].shape(), in[1] ? sum_type(from) : from, in[0].device());
    kernels_of(y).dropout(of(in[0], in[1]), Sink{y});
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& d = d_out[0];
    if (d_in[0]->wanted()) {
      kernels_of(d).dropout(of(d, {}), d_in[0]->sink(d));
    }
    d_in[1]->give(std::move(d_out[0]));
  }
};

}  // namespace

Var dropout(const Var& x, double rate, const DropoutKey& key) {
  check_float("dropout", "x", x);
  check_dropout("dropout", rate, key);
  return rate == 0 ? x : apply(Dropout(dropout_args(rate, key)), {x, Var{}})[0];
}

Var add_dropout(const Var& residual, const Var& x, double rate, const DropoutKey& key) {
  check_float("add_dropout", "residual", residual);
  check_sum("add_dropout", "residual", residual, residual.shape(), residual.value.dtype());
  check_either("add_dropout", "x", x, residual.shape(), residual.value.dtype());
  check_dropout("add_dropout", rate, key);
  return rate == 0 ? add(residual, x) : apply(Dropout(dropout_args(rate, key)), {x, residual})[0];
}

}  // namespace regla
