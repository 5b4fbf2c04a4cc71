#include <array>

#include "autograd/ops/op.h"

namespace regla {
namespace {

struct LinearAttentionOp : Op {
  LinearAttentionArgs args;
  RecurrenceResult result;
  explicit LinearAttentionOp(LinearAttentionArgs settings) : args(std::move(settings)) {}
  const char* name() const override { return "linear_attention"; }

  Tensors forward(const Tensors& in) override {
    const Tensor& state = in[6];
    args.q = in[0];
    args.k = in[1];
    args.u = in[2];
    args.log_a = in[3];
    args.log_b = in[4];
    args.log_s = in[5];
    args.state = state;
    args.keep = Tape::current() != nullptr;
    const Tensor o = Tensor::empty_like(args.u);
    const Shape state_shape = {args.q.dim(0), args.q.dim(2), args.q.dim(3), args.u.dim(3)};
    result = {o, Tensor::empty(state_shape, sum_type(o.dtype()), o.device()), {}};
    kernels_of(o).linear_attention(args, result);
    return {result.o, result.state};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    const auto sink = [&](size_t i, const Tensor& like) {
      return like.defined() ? d_in[i]->sink(like) : Sink{};
    };
    const LinearAttentionGradients gradients = {
        .d_o = d_out[0] ? d_out[0] : Tensor::zeros_like(args.u),
        .d_state = d_out[1],
        .d_q = sink(0, args.q),
        .d_k = sink(1, args.k),
        .d_u = sink(2, args.u),
        .d_log_a = sink(3, args.log_a),
        .d_log_b = sink(4, args.log_b),
        .d_log_s = sink(5, args.log_s),
        .d_state0 = sink(6, args.state)};
    kernels_of(args.u).linear_attention_backward(args, result, gradients);
  }

  Tensor* kept_input(size_t input) override {
    const std::array<Tensor*, 6> inputs = {&args.q,     &args.k,     &args.u,
                                           &args.log_a, &args.log_b, &args.log_s};
    return input < inputs.size() ? inputs[input] : nullptr;
  }
};

void check_arguments(const char* op, const Var& q, const Var& k, const Var& u,
                     const LogDecays& decays, const Tensor& reset, const Var& state) {
  check_rank(op, "q", q, 4);
  check_rank(op, "u", u, 4);
  const DType dtype = q.value.dtype();
  const int64_t B = q.dim(0), steps = q.dim(1), H = q.dim(2), K = q.dim(3), V = u.dim(3);
  check(steps > 0, "[", op, "] expected at least one token, got ", q.shape());
  check_same(op, "k", k, q.shape(), dtype);
  check_same(op, "u", u, {B, steps, H, V}, dtype);
  if (decays.key.defined()) check_same(op, "key decay", decays.key, q.shape(), dtype);
  if (decays.value.defined()) check_same(op, "value decay", decays.value, u.shape(), dtype);
  if (decays.scalar.defined()) check_sum(op, "scalar decay", decays.scalar, {B, steps, H}, dtype);
  if (reset) check_indices(op, "reset", reset, {B, steps});
  if (state.defined()) check_sum(op, "state", state, {B, H, K, V}, dtype);
}

}  // namespace

Recurrence linear_attention(const Var& q, const Var& k, const Var& u, const LogDecays& decays,
                            const Tensor& reset, const Var& state, int64_t chunk) {
  check_arguments("linear_attention", q, k, u, decays, reset, state);
  check(chunk >= 0, "[linear_attention] expected a chunk of at least 0 tokens, got ", chunk);
  LinearAttentionArgs args{};
  args.reset = reset;
  args.chunk = chunk;
  const Vars out = apply(LinearAttentionOp(std::move(args)),
                         {q, k, u, decays.key, decays.value, decays.scalar, state});
  return {out[0], out[1]};
}

Tensor linear_attention_step(const Var& q, const Var& k, const Var& u, const LogDecays& decays,
                             const Tensor& reset, Tensor state) {
  check(state.defined(), "[linear_attention_step] expected a state");
  check_arguments("linear_attention_step", q, k, u, decays, reset, Var(state));
  check(q.dim(1) == 1, "[linear_attention_step] expected one token, got ", q.shape());
  check(Tape::current() == nullptr, "[linear_attention_step] has no gradient: use chunks to train");
  Tensor o = Tensor::empty_like(u.value);
  kernels_of(o).linear_attention_step({.q = q.value,
                                       .k = k.value,
                                       .u = u.value,
                                       .log_a = decays.key.value,
                                       .log_b = decays.value.value,
                                       .log_s = decays.scalar.value,
                                       .reset = reset,
                                       .state = std::move(state),
                                       .chunk = 1,
                                       .keep = false},
                                      o);
  return o;
}

}  // namespace regla
