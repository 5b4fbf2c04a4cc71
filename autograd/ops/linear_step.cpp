#include "autograd/ops/op.h"
#include "backends/copies.h"

namespace regla {
namespace {

constexpr const char* kOp = "linear_step";

Activation activation_of(const std::optional<Gelu>& gelu) {
  if (!gelu) return Activation::None;
  return *gelu == Gelu::Tanh ? Activation::TanhGelu : Activation::Gelu;
}

void check_weights(const Var& x, const StepNorm& norm, const std::vector<StepWeight>& weights,
                   DType type, const Var& residual) {
  check_rank(kOp, "x", x, 2);
  const int64_t B = x.dim(0), D = x.dim(1);
  check(sum_type(type) == sum_type(x.value.dtype()), "[", kOp, "] cannot give ", name_of(type),
        " from ", name_of(x.value.dtype()));
  if (norm.gain.defined()) {
    check_sum(kOp, "gain", norm.gain, {D}, type);
    if (norm.bias.defined()) check_sum(kOp, "norm's bias", norm.bias, {D}, type);
  } else {
    check_same(kOp, "x", x, {B, D}, type);
  }
  check(!weights.empty(), "[", kOp, "] expected at least one weight");
  const Var read = Tensor::empty({}, type);  // what the weights are multiplied with
  for (const StepWeight& part : weights) {
    check_rank(kOp, "weight", part.weight, 2);
    check_weight(kOp, read, part.weight, {part.weight.dim(0), D});
    check(sum_type(part.out) == sum_type(type), "[", kOp, "] cannot give ", name_of(part.out),
          " from ", name_of(type));
    if (part.bias.defined()) check_bias(kOp, part.bias, {part.weight.dim(0)}, part.out);
  }
  if (!residual.defined()) return;
  check(weights.size() == 1, "[", kOp, "] expected one weight beside a residual, got ",
        weights.size());
  check_sum(kOp, "residual", residual, {B, weights[0].weight.dim(0)}, type);
}

}  // namespace

Tensors linear_step(const Var& x, const StepNorm& norm, const std::vector<StepWeight>& weights,
                    DType type, std::optional<Gelu> activation, const Var& residual) {
  check_weights(x, norm, weights, type, residual);
  check(Tape::current() == nullptr, "[", kOp, "] has no gradient: use `linear` to train");
  LinearStepArgs args = {.x = x.value,
                         .gain = norm.gain.value,
                         .bias = norm.bias.value,
                         .epsilon = norm.epsilon,
                         .residual = residual.value,
                         .parts = {},
                         .activation = activation_of(activation),
                         .type = type};
  Tensors out;
  for (const StepWeight& part : weights) {
    // A sum has the type of sums, and what GELU gives is an activation.
    const DType given = residual.defined() ? sum_type(type) : activation ? type : part.out;
    out.push_back(Tensor::empty({x.dim(0), part.weight.dim(0)}, given, x.value.device()));
    const DType product = residual.defined() || activation ? type : part.out;
    args.parts.push_back({part.weight.value, converted(part.bias.value, product), out.back()});
  }
  kernels_of(x.value).linear_step(args);
  return out;
}

}  // namespace regla
