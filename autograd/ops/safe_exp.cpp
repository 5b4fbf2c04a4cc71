#include "autograd/ops/op.h"

namespace regla {
namespace {

struct SafeExpOp : Op {
  SafeExpArgs args;
  DType out;
  SafeExpResult result;
  SafeExpOp(SafeExpArgs settings, DType type) : args(std::move(settings)), out(type) {}
  const char* name() const override { return "safe_exp"; }

  Tensors forward(const Tensors& in) override {
    args.z = in[0];
    args.m0 = in[1];
    const Tensor& z = in[0];
    const Shape heads = {z.dim(0), z.dim(1), z.dim(2)};
    result.features = Tensor::empty(z.shape(), out, z.device());
    result.argmax = Tensor::empty(heads, DType::I32, z.device());
    if (args.maximum != Maximum::Token) {
      result.log_rho = Tensor::empty(heads, sum_type(out), z.device());
      result.m = Tensor::empty({z.dim(0), z.dim(2)}, sum_type(out), z.device());
    }
    kernels_of(z).safe_exp(args, result);
    args.z = {};  // the features are enough for the gradient
    return {result.features, result.log_rho, result.m};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    // The kernel writes d_z even where only m0 wants a gradient.
    const Tensor& features = result.features;
    const int64_t heads = features.dim(2) * features.dim(3);
    RowsSink d_z = d_in[0]->rows_sink(features, heads);
    if (!d_z)
      d_z.matrix = {Tensor::empty_like(features).reshape({features.numel() / heads, heads})};
    kernels_of(features).safe_exp_backward(args, result, d_out[0], d_out[1], d_out[2], d_z,
                                           args.m0 ? d_in[1]->sink(args.m0) : Sink{});
  }
};

}  // namespace

SafeExp safe_exp(const Var& z, const Var& m0, const Tensor& reset, Maximum maximum, double scale,
                 std::optional<DType> out, const Rotation& rotation) {
  check_rank("safe_exp", "z", z, 4);
  check(z.dim(1) > 0 && z.dim(3) > 0, "[safe_exp] expected at least one token and feature, got ",
        z.shape());
  if (reset) check_indices("safe_exp", "reset", reset, {z.dim(0), z.dim(1)});
  const bool carries = maximum != Maximum::Token;
  check(carries || !m0.defined(), "[safe_exp] a maximum per token takes no earlier maximum");
  if (m0.defined()) check_sum("safe_exp", "m0", m0, {z.dim(0), z.dim(2)}, z.value.dtype());
  check_rotation("safe_exp", z, rotation);
  SafeExpArgs args{
      .z = {}, .rotation = rotation, .m0 = {}, .reset = reset, .maximum = maximum, .scale = scale};
  const DType type = type_of_output("safe_exp", out, z);
  const Vars results = apply(SafeExpOp(std::move(args), type), {z, m0});
  return {results[0], results[1], results[2]};
}

}  // namespace regla
