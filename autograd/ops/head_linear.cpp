#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

/// y_h = x_h W_h^T + c_h
struct HeadLinear : Op {
  HeadLinearArgs args;
  DType out;
  explicit HeadLinear(DType type) : args{}, out(type) {}
  const char* name() const override { return "head_linear"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& x = in[0];
    args = {.x = x.reshape({x.dim(0) * x.dim(1), x.dim(2), x.dim(3)}),
            .weight = in[1],
            .bias = converted(in[2], out)};
    const int64_t F = args.weight.dim(0) / x.dim(2);
    Tensor y = Tensor::empty(x.shape().drop_last().append(F), out, x.device());
    kernels_of(y).head_linear(args, y);
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const Tensor& x = args.x;
    const Tensor d_y = converted(d_out[0], x.dtype());  // an operand of products
    const Shape x_shape = d_y.shape().drop_last().append(x.dim(2));
    const KernelTable& kernel = kernels_of(x);
    kernel.head_linear_backward(args, d_y, d_in[0]->sink(x_shape, x.device()),
                                d_in[1]->sink(args.weight));
    if (args.bias && d_in[2]->wanted()) {  // d_c = sum over rows of d_y
      kernel.column_sums(d_y.reshape({x.dim(0), args.weight.dim(0)}), d_in[2]->sink(args.bias));
    }
  }

  bool narrows_gradient() const override { return true; }
};

}  // namespace

Var head_linear(const Var& x, const Var& weight, const Var& bias, std::optional<DType> out) {
  check_rank("head_linear", "x", x, 4);
  check_rank("head_linear", "weight", weight, 2);
  const int64_t H = x.dim(2), outputs = weight.dim(0);
  check(H > 0 && x.dim(3) > 0 && outputs > 0 && outputs % H == 0,
        "[head_linear] expected a weight with as many rows for each of ", H, " heads, got ",
        weight.shape());
  check_same("head_linear", "weight", weight, {outputs, x.dim(3)}, x.value.dtype());
  const DType result = type_of_output("head_linear", out, x);
  if (bias.defined()) check_bias("head_linear", bias, {outputs}, result);
  return apply(HeadLinear(result), {x, weight, bias})[0];
}

}  // namespace regla
