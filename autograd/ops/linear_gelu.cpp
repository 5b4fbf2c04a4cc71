#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

/// y = gelu(z), z = x W^T + b
struct LinearGelu : Op {
  bool tanh;
  Tensor x, weight, z;
  explicit LinearGelu(bool is_tanh) : tanh(is_tanh) {}
  const char* name() const override { return "linear_gelu"; }

  Tensors forward(const Tensors& in) override {
    x = in[0];
    weight = in[1];
    z = Tensor::empty(x.shape().drop_last().append(weight.dim(0)), x.dtype(), x.device());
    Tensor y = Tensor::empty_like(z);
    const Tensor bias = converted(in[2], z.dtype());
    kernels_of(x).matmul({.a = as_rows(x), .b = weight, .bias = bias, .transpose_b = true},
                         Sink{as_rows(z)});
    kernels_of(x).gelu(z, tanh, y);
    return {y};
  }

  /// d_b is the sum of the columns of d_z; the rest is that of `linear`.
  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    static thread_local Gradient unwanted;
    Tensor d_z = Tensor::empty_like(z);
    kernels_of(x).gelu_backward_sums(as_rows(z), tanh, as_rows(d_out[0]), as_rows(d_z),
                                     d_in[2]->sink({weight.dim(0)}, x.device()));
    z = d_out[0] = {};
    d_in[0]->add_linear({.x = x,
                         .weight = weight,
                         .d_y = std::move(d_z),
                         .d_weight = d_in[1],
                         .d_bias = &unwanted});
  }

  Tensor* kept_input(size_t input) override { return input == 0 ? &x : nullptr; }
};

}  // namespace

Var linear_gelu(const Var& x, const Var& weight, const Var& bias, Gelu kind) {
  check_inner("linear_gelu", "x", x);
  check_rank("linear_gelu", "weight", weight, 2);
  check_weight("linear_gelu", x, weight, {weight.dim(0), x.dim(-1)});
  check_bias("linear_gelu", bias, {weight.dim(0)}, x.value.dtype());
  return apply(LinearGelu(kind == Gelu::Tanh), {x, weight, bias})[0];
}

}  // namespace regla
