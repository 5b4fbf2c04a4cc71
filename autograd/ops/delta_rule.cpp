#include <array>

#include "autograd/ops/op.h"

namespace regla {
namespace {

struct DeltaRuleOp : Op {
  DeltaRuleArgs args;
  RecurrenceResult result;
  explicit DeltaRuleOp(DeltaRuleArgs settings) : args(std::move(settings)) {}
  const char* name() const override { return "delta_rule"; }

  Tensors forward(const Tensors& in) override {
    args.q = in[0];
    args.k = in[1];
    args.v = in[2];
    args.g = in[3];
    args.state = in[4];
    args.keep = Tape::current() != nullptr;
    const Tensor o = Tensor::empty_like(args.v);
    const Shape state_shape = {args.q.dim(0), args.q.dim(2), args.q.dim(3), args.v.dim(3)};
    result = {o, Tensor::empty(state_shape, sum_type(o.dtype()), o.device()), {}};
    kernels_of(o).delta_rule(args, result);
    return {result.o, result.state};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const DeltaRuleGradients gradients = {
        .d_o = d_out[0] ? d_out[0] : Tensor::zeros_like(args.v),
        .d_state = d_out[1],
        .d_q = d_in[0]->sink(args.q),
        .d_k = d_in[1]->sink(args.k),
        .d_v = d_in[2]->sink(args.v),
        .d_g = d_in[3]->sink(args.g),
        .d_state0 = args.state ? d_in[4]->sink(args.state) : Sink{}};
    kernels_of(args.v).delta_rule_backward(args, result, gradients);
  }

  Tensor* kept_input(size_t input) override {
    const std::array<Tensor*, 4> inputs = {&args.q, &args.k, &args.v, &args.g};
    return input < inputs.size() ? inputs[input] : nullptr;
  }
};

void check_arguments(const char* op, const Var& q, const Var& k, const Var& v, const Var& g,
                     const Tensor& reset, const Var& state) {
  check_rank(op, "q", q, 4);
  check_rank(op, "v", v, 4);
  const DType dtype = q.value.dtype();
  const int64_t B = q.dim(0), steps = q.dim(1), H = q.dim(2), K = q.dim(3), V = v.dim(3);
  check(steps > 0, "[", op, "] expected at least one token, got ", q.shape());
  check_same(op, "k", k, q.shape(), dtype);
  check_same(op, "v", v, {B, steps, H, V}, dtype);
  check_sum(op, "write strength", g, {B, steps, H}, dtype);
  if (reset) check_indices(op, "reset", reset, {B, steps});
  if (state.defined()) check_sum(op, "state", state, {B, H, K, V}, dtype);
}

}  // namespace

Recurrence delta_rule(const Var& q, const Var& k, const Var& v, const Var& g, const Tensor& reset,
                      const Var& state, int64_t chunk) {
  check_arguments("delta_rule", q, k, v, g, reset, state);
  check(chunk >= 0, "[delta_rule] expected a chunk of at least 0 tokens, got ", chunk);
  DeltaRuleArgs args{};
  args.reset = reset;
  args.chunk = chunk;
  const Vars out = apply(DeltaRuleOp(std::move(args)), {q, k, v, g, state});
  return {out[0], out[1]};
}

Tensor delta_rule_step(const Var& q, const Var& k, const Var& v, const Var& g, const Tensor& reset,
                       Tensor state) {
  check(state.defined(), "[delta_rule_step] expected a state");
  check_arguments("delta_rule_step", q, k, v, g, reset, Var(state));
  check(q.dim(1) == 1, "[delta_rule_step] expected one token, got ", q.shape());
  check(Tape::current() == nullptr, "[delta_rule_step] has no gradient: use chunks to train");
  Tensor o = Tensor::empty_like(v.value);
  kernels_of(o).delta_rule_step({.q = q.value,
                                 .k = k.value,
                                 .v = v.value,
                                 .g = g.value,
                                 .reset = reset,
                                 .state = std::move(state),
                                 .chunk = 1,
                                 .keep = false},
                                o);
  return o;
}

}  // namespace regla
