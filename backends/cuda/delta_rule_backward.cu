#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/kernels.h"

namespace regla::cuda {
namespace {

template <class S>
struct DeltaRuleResults {
  Elements<S> d_o;
  Result<S> d_q, d_k, d_v, d_g, d_state0;

  explicit DeltaRuleResults(const DeltaRuleGradients& to)
      : d_o(to.d_o), d_q(to.d_q), d_k(to.d_k), d_v(to.d_v), d_g(to.d_g), d_state0(to.d_state0) {}
};

/// What a block holds of one token, in shared memory.
template <class S>
struct DeltaRuleToken {
  using Inputs = DeltaRuleInputs<S>;
  using Gradients = DeltaRuleResults<S>;

  S *q, *k, *v, *d_o;
  S *error, *d_u;  // [V] e = v - S^T k, and the gradient of u = g e
  S* parts;        // [warps, V] sums over the rows of each warp
  S* g;

  static size_t bytes(int64_t K, int64_t V) {
    return static_cast<size_t>(2 * K + (4 + kReverseWarps) * V + 1) * sizeof(S);
  }
  __device__ DeltaRuleToken(S* shared, int64_t K, int64_t V) {
    q = shared;
    k = q + K;
    v = k + K;
    d_o = v + V;
    error = d_o + V;
    d_u = error + V;
    parts = d_u + V;
    g = parts + kReverseWarps * V;
  }

  __device__ void load(const Inputs& in, const Elements<S>& gradient, int64_t n, int64_t t) const {
    const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
    __syncthreads();  // nobody reads the token before any more
    for (int64_t i = threadIdx.x; i < K; i += blockDim.x) {
      q[i] = in.q[row * K + i];
      k[i] = in.k[row * K + i];
    }
    for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
      v[j] = in.v[row * V + j];
      d_o[j] = gradient[row * V + j];
    }
    if (threadIdx.x == 0) *g = in.g[row];
    __syncthreads();
  }

  /// parts: of each warp the sum over its rows i of f(i, j), by all threads.
  template <class F>
  __device__ void sum_rows(int64_t K, int64_t V, F f) const {
    for (int64_t j = threadIdx.x; j < kReverseWarps * V; j += blockDim.x) parts[j] = 0;
    __syncthreads();
    const int64_t warp = threadIdx.x / 32;
    each_pair(K, V, [&](int64_t i, int64_t j) { parts[warp * V + j] += f(i, j); });
    __syncthreads();
  }

  /// error = v - S^T k
  __device__ void find_error(int64_t K, int64_t V, const S* state, bool empties) const {
    sum_rows(K, V, [&](int64_t i, int64_t j) { return empties ? S(0) : k[i] * state[i * V + j]; });
    for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
      error[j] = v[j] - sum_of_warps(parts, V, j);
    }
    __syncthreads();
  }

  __device__ void advance(const Inputs& in, int64_t n, int64_t t, const S* from, S* next) const {
    const int64_t K = in.heads.K, V = in.heads.V;
    const bool empties = in.heads.resets(n, t);
    find_error(K, V, from, empties);
    each_pair(K, V, [&](int64_t i, int64_t j) {
      next[i * V + j] = (empties ? S(0) : from[i * V + j]) + k[i] * (*g * error[j]);
    });
  }

  // core/recurrences/delta_rule.h
  __device__ void reverse(const Inputs& in, const Gradients& to, int64_t n, int64_t t,
                          const S* before, S* dS) const {
    const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const bool empties = in.heads.resets(n, t);
    const S strength = *g;
    const auto state = [&](int64_t i, int64_t j) { return empties ? S(0) : before[i * V + j]; };
    find_error(K, V, before, empties);
    sum_rows(K, V, [&](int64_t i, int64_t j) {  // S_t = S + k u^T,  o = S_t^T q
      const S d = dS[i * V + j] + q[i] * d_o[j];
      dS[i * V + j] = d;
      return d * k[i];
    });
    for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
      d_u[j] = sum_of_warps(parts, V, j);
      if (to.d_v) to.d_v.put(row * V + j, strength * d_u[j]);
    }
    __syncthreads();
    for (int64_t i = warp; i < K; i += kReverseWarps) {
      S d_q = 0, d_k = 0;
      for (int64_t j = lane; j < V; j += 32) {
        const S u = strength * error[j], d_error = strength * d_u[j], d = dS[i * V + j];
        d_q += d_o[j] * (state(i, j) + k[i] * u);
        d_k += d * u - state(i, j) * d_error;  // e = v - S^T k
        dS[i * V + j] = empties ? S(0) : d - k[i] * d_error;
      }
      d_q = warp_sum(d_q);
      d_k = warp_sum(d_k);
      if (lane == 0 && to.d_q) to.d_q.put(row * K + i, d_q);
      if (lane == 0 && to.d_k) to.d_k.put(row * K + i, d_k);
    }
    if (to.d_g && warp == 0) {
      S d_g = 0;
      for (int64_t j = lane; j < V; j += 32) d_g += d_u[j] * error[j];
      d_g = warp_sum(d_g);
      if (lane == 0) to.d_g.put(row, d_g);
    }
  }
};

}  // namespace

void delta_rule_backward(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                         const DeltaRuleGradients& gradients) {
  RecurrenceResult states = forward;
  if (takes_chunks(args)) {
    if (are_aligned<kWidest>(gradients.d_o, gradients.d_q.tensor, gradients.d_k.tensor,
                             gradients.d_v.tensor, gradients.d_state0.tensor)) {
      return delta_rule_backward_chunks(args, forward, gradients);
    }
    states.kept = Tensor::empty(forward.kept.shape(), DType::F32, forward.kept.device());
    convert(forward.kept, states.kept);
  }
  reverse_all<DeltaRuleToken>("delta_rule_backward", args, states, gradients);
}

}  // namespace regla::cuda
