#include "autograd/ops/op.h"

namespace regla {
namespace {

struct SoftmaxAttention : Op {
  SoftmaxAttentionArgs args;
  Tensor o, log_sum;
  explicit SoftmaxAttention(SoftmaxAttentionArgs settings) : args(std::move(settings)) {}
  const char* name() const override { return "softmax_attention"; }

  Tensors forward(const Tensors& in) override {
    args.q = in[0];
    args.k = in[1];
    args.v = in[2];
    const Shape heads = args.q.shape().drop_last();
    o = Tensor::empty(heads.append(args.v.dim(3)), args.q.dtype(), args.q.device());
    log_sum = Tensor::empty(heads, sum_type(o.dtype()), o.device());
    kernels_of(o).softmax_attention(args, o, log_sum);
    return {o};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(o).softmax_attention_backward(args, o, log_sum, d_out[0], d_in[0]->sink(args.q),
                                             d_in[1]->sink(args.k), d_in[2]->sink(args.v));
  }
};

/// Queries [B, T, H, K] beside keys and values of `length` entries.
void check_arguments(const char* op, const Var& q, const Var& k, const Var& v, int64_t length,
                     int64_t window) {
  const int64_t B = q.dim(0), H = q.dim(2);
  check_same(op, "k", k, {B, length, H, q.dim(3)}, q.value.dtype());
  check_same(op, "v", v, {B, length, H, v.dim(3)}, q.value.dtype());
  check(window >= 0, "[", op, "] expected a window of at least 0, got ", window);
}

}  // namespace

Var softmax_attention(const Var& q, const Var& k, const Var& v, const Tensor& first, int64_t window,
                      double scale) {
  check_rank("softmax_attention", "q", q, 4);
  check_rank("softmax_attention", "k", k, 4);
  check_rank("softmax_attention", "v", v, 4);
  const int64_t B = q.dim(0), steps = q.dim(1), length = k.dim(1);
  check(steps > 0 && length >= steps, "[softmax_attention] expected at least ", steps,
        " keys for queries ", q.shape(), ", got ", length);
  check_arguments("softmax_attention", q, k, v, length, window);
  if (first) check_indices("softmax_attention", "first", first, {B, steps});
  SoftmaxAttentionArgs args = {{}, {}, {}, first, window, scale};
  return apply(SoftmaxAttention(std::move(args)), {q, k, v})[0];
}

Tensor softmax_attention_step(const Var& q, const Var& k, const Var& v, const KeyValueCache& cache,
                              const Rotation& rotation, int64_t window, double scale) {
  constexpr const char* kOp = "softmax_attention_step";
  for (const auto& [what, x] :
       {std::pair("q", q), std::pair("k", k), std::pair("v", v), std::pair("keys", Var(cache.keys)),
        std::pair("values", Var(cache.values))}) {
    check_rank(kOp, what, x, 4);
  }
  check(q.dim(1) == 1, "[", kOp, "] expected one token, got ", q.shape());
  check_arguments(kOp, q, k, v, 1, window);
  check_arguments(kOp, q, cache.keys, cache.values, cache.keys.dim(1), window);
  check_same(kOp, "values", cache.values, {q.dim(0), cache.keys.dim(1), q.dim(2), v.dim(3)},
             q.value.dtype());
  check_indices(kOp, "used", cache.used, {1});
  check_indices(kOp, "positions", rotation.positions, {q.dim(0), 1});
  check_rotation(kOp, q, rotation);
  check(Tape::current() == nullptr, "[", kOp, "] has no gradient: use chunks to train");
  Tensor o = Tensor::empty_like(v.value);
  kernels_of(o).softmax_attention_step({.q = q.value,
                                        .k = k.value,
                                        .v = v.value,
                                        .keys = cache.keys,
                                        .values = cache.values,
                                        .used = cache.used,
                                        .rotation = rotation,
                                        .window = window,
                                        .scale = scale},
                                       o);
  return o;
}

}  // namespace regla
