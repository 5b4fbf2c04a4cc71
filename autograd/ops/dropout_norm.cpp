#include "autograd/ops/dropout.h"

namespace regla {
namespace {

/// sum = residual + mask * x, y = norm(sum). What is kept is the sum, its statistics, and the mask
/// or how it is drawn.
struct DropoutNormOp : Op {
  DropoutArgs drop;
  NormArgs norm;
  DType out;
  DropoutNormResult result;
  DropoutNormOp(DropoutArgs dropout, double epsilon, DType type)
      : drop(std::move(dropout)), norm{{}, {}, {}, epsilon, true}, out(type) {}
  const char* name() const override { return "dropout_norm"; }

  Tensors forward(const Tensors& in) override {
    const DType S = sum_type(out);
    const Shape& shape = in[0].shape();
    const auto empty = [&](const Shape& size, DType type) {
      return Tensor::empty(size, type, in[0].device());
    };
    norm.x = empty(shape, S);
    norm.gain = in[2];
    norm.bias = in[3];
    result = {.y = empty(shape, out),
              .mean = empty(shape.drop_last(), S),
              .inverse = empty(shape.drop_last(), S),
              .kept = {}};
    drop.residual = in[0];
    drop.x = in[1];
    kernels_of(norm.x).dropout_norm(drop, norm, result);
    drop.residual = drop.x = {};
    return {norm.x, std::move(result.y)};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& sum = norm.x;
    Tensor d_y = d_out[1] ? std::move(d_out[1]) : Tensor::zeros(sum.shape(), out, sum.device());
    Sink d_sum = {std::move(d_out[0]), true};
    if (!d_sum) d_sum = {Tensor::empty_like(sum), false};
    if (!d_sum.tensor.unique()) d_sum.tensor = d_sum.tensor.clone();
    Tensor d_x = d_in[1]->wanted() ? Tensor::empty(sum.shape(), out, sum.device()) : Tensor{};
    kernels_of(sum).dropout_norm_backward(drop, norm, result,
                                          {.d_y = std::move(d_y),
                                           .d_sum = d_sum,
                                           .d_x = d_x,
                                           .d_gain = d_in[2]->sink(norm.gain),
                                           .d_bias = d_in[3]->sink(norm.bias)});
    if (d_x) d_in[1]->give(std::move(d_x));
    d_in[0]->give(std::move(d_sum.tensor));
  }
};

}  // namespace

SumAndNorm dropout_norm(const Var& residual, const Var& x, double rate, const DropoutKey& key,
                        const Var& gain, const Var& bias, double epsilon) {
  check_inner("dropout_norm", "x", x);
  const DType type = x.value.dtype();
  check_sum("dropout_norm", "residual", residual, x.shape(), type);
  check_sum("dropout_norm", "gain", gain, {x.dim(-1)}, type);
  check_sum("dropout_norm", "bias", bias, {x.dim(-1)}, type);
  check_dropout("dropout_norm", rate, key);
  const Vars both =
      apply(DropoutNormOp(dropout_args(rate, key), epsilon, type), {residual, x, gain, bias});
  return {both[0], both[1]};
}

}  // namespace regla
