#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

/// y = x W^T + b
struct Linear : Op {
  DType out;
  int64_t heads;  // that y is cut into, or 0
  Tensor x, weight;
  Linear(DType type, int64_t count) : out(type), heads(count) {}
  const char* name() const override { return "linear"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    weight = in[1];
    const int64_t N = weight.dim(0);
    const Tensor rows = as_rows(x), y = Tensor::empty({rows.dim(0), N}, out, x.device());
    const Tensor bias = converted(in[2], out);
    kernels_of(x).matmul({.a = rows, .b = weight, .bias = bias, .transpose_b = true}, Sink{y});
    const Shape outer = x.shape().drop_last();
    return {y.reshape(heads > 0 ? outer.append(heads).append(N / heads) : outer.append(N))};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    d_in[0]->add_linear({.x = x,
                         .weight = weight,
                         .d_y = std::move(d_out[0]),
                         .d_weight = d_in[1],
                         .d_bias = d_in[2]});
  }

  Tensor* kept_input(size_t input) override { return input == 0 ? &x : nullptr; }
  const Tensor* linear_weight() const override { return &weight; }
  bool narrows_gradient() const override { return true; }
};

}  // namespace

Var linear(const Var& x, const Var& weight, const Var& bias, std::optional<DType> out,
           int64_t heads) {
  check_float("linear", "x", x);
  check_rank("linear", "weight", weight, 2);
  check(x.value.rank() >= 1, "[linear] expected x with an inner axis, got a scalar");
  check_weight("linear", x, weight, {weight.dim(0), x.dim(-1)});
  const DType result = type_of_output("linear", out, x);
  if (bias.defined()) check_bias("linear", bias, {weight.dim(0)}, result);
  check(heads >= 0 && (heads == 0 || weight.dim(0) % heads == 0), "[linear] cannot cut ",
        weight.dim(0), " outputs into ", heads, " heads");
  return apply(Linear(result, heads), {x, weight, bias})[0];
}

}  // namespace regla
