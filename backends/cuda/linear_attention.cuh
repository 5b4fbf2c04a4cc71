#pragma once

#include "backends/cuda/recurrence.cuh"

namespace regla::cuda {

/// Whether both passes run in chunks of 64 tokens on tensor cores: BF16, K and V multiples of 16 up
/// to 128, all tensors on multiples of 16 bytes. Then `kept` is BF16 [B H, ceil(T / 64), K, V]: the
/// state before each chunk, rounded. All else goes token by token.
bool takes_chunks(const LinearAttentionArgs& args);

/// The forward pass of those.
void linear_attention_chunks(const LinearAttentionArgs& args, RecurrenceResult& result);

/// The inputs of core/recurrences/linear_attention.h for all heads. Scalar decays and resets are
/// folded into the factors on the key axis.
template <class S>
struct LinearAttentionInputs {
  Heads heads;
  Elements<S> q, k, u, log_a, log_b, log_s;

  explicit LinearAttentionInputs(const LinearAttentionArgs& args)
      : heads{args.q.dim(1), args.q.dim(2), args.q.dim(3), args.u.dim(3),
              args.reset ? args.reset.data<int32_t>() : nullptr},
        q(args.q),
        k(args.k),
        u(args.u),
        log_a(args.log_a),
        log_b(args.log_b),
        log_s(args.log_s) {}

  __device__ S key_factor(int64_t n, int64_t t, int64_t i) const {
    if (heads.resets(n, t)) return 0;
    const int64_t row = heads.row(n, t);
    const S log = (log_a ? log_a[row * heads.K + i] : S(0)) + (log_s ? log_s[row] : S(0));
    return exp(log);
  }
  __device__ S value_factor(int64_t n, int64_t t, int64_t j) const {
    return log_b ? exp(log_b[heads.row(n, t) * heads.V + j]) : S(1);
  }
};

}  // namespace regla::cuda
