#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

/// y = x W^T + b
struct Linear : Op {
  DType out;
  Tensor x, weight;
  explicit Linear(DType type) : out(type) {}
  const char* name() const override { return "linear"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    weight = in[1];
    Tensor y = Tensor::empty(x.shape().drop_last().append(weight.dim(0)), out, x.device());
    const Tensor bias = converted(in[2], out);
    kernels_of(x).matmul({.a = as_rows(x), .b = weight, .bias = bias, .transpose_b = true},
                         Sink{as_rows(y)});
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    d_in[0]->add_linear({.x = x,
                         .weight = weight,
                         .d_y = std::move(d_out[0]),
                         .d_weight = d_in[1],
                         .d_bias = d_in[2]});
  }

  Tensor* kept_input(size_t input) override { return input == 0 ? &x : nullptr; }
  bool narrows_gradient() const override { return true; }
};

}  // namespace

Var linear(const Var& x, const Var& weight, const Var& bias, std::optional<DType> out) {
  check_float("linear", "x", x);
  check_rank("linear", "weight", weight, 2);
  check(x.value.rank() >= 1, "[linear] expected x with an inner axis, got a scalar");
  check_weight("linear", x, weight, {weight.dim(0), x.dim(-1)});
  const DType result = type_of_output("linear", out, x);
  if (bias.defined()) check_bias("linear", bias, {weight.dim(0)}, result);
  return apply(Linear(result), {x, weight, bias})[0];
}

}  // namespace regla
