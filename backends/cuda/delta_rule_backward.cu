#include "backends/cuda/delta_rule.cuh"
#include "backends/cuda/kernels.h"

namespace regla::cuda {
namespace {

template <class S>
struct Gradients {
  Elements<S> d_o;
  Result<S> d_q, d_k, d_v, d_g, d_state0;
};

/// What a block holds of one token, in shared memory.
template <class S>
struct Token {
  S *q, *k, *d_k, *v, *d_o;
  S *error, *d_u;  // [V] e = v - S^T k, and the gradient of u = g e
  S* parts;        // [warps, V] sums over the rows of each warp
  S* g;

  static size_t bytes(int64_t K, int64_t V) {
    return static_cast<size_t>(3 * K + (4 + kReverseWarps) * V + 1) * sizeof(S);
  }
  __device__ Token(S* shared, int64_t K, int64_t V) {
    q = shared;
    k = q + K;
    d_k = k + K;
    v = d_k + K;
    d_o = v + V;
    error = d_o + V;
    d_u = error + V;
    parts = d_u + V;
    g = parts + kReverseWarps * V;
  }

  __device__ void load(const DeltaRuleInputs<S>& in, const Elements<S>& gradient, int64_t n,
                       int64_t t) const {
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

  /// to[j] = from[j] + the sum over i of f(i, j), by all threads.
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
};

/// Reverses one token (core/recurrences/delta_rule.h). `before` is the state before it; `dS` comes
/// in as the gradient of the state after it and leaves as that of the state before it.
template <class S>
__device__ void reverse_token(const DeltaRuleInputs<S>& in, const Token<S>& x,
                              const Gradients<S>& to, int64_t n, int64_t t, const S* before,
                              S* dS) {
  const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const bool empties = in.heads.resets(n, t);
  const S g = *x.g;
  const auto state = [&](int64_t i, int64_t j) { return empties ? S(0) : before[i * V + j]; };
  x.find_error(K, V, before, empties);
  x.sum_rows(K, V, [&](int64_t i, int64_t j) {  // S_t = S + k u^T,  o = S_t^T q
    const S d = dS[i * V + j] + x.q[i] * x.d_o[j];
    dS[i * V + j] = d;
    return d * x.k[i];
  });
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    x.d_u[j] = sum_of_warps(x.parts, V, j);
    if (to.d_v) to.d_v.put(row * V + j, g * x.d_u[j]);
  }
  __syncthreads();
  for (int64_t i = warp; i < K; i += kReverseWarps) {
    S d_q = 0, d_k = 0;
    for (int64_t j = lane; j < V; j += 32) {
      const S u = g * x.error[j], d_error = g * x.d_u[j], d = dS[i * V + j];
      d_q += x.d_o[j] * (state(i, j) + x.k[i] * u);
      d_k += d * u - state(i, j) * d_error;  // e = v - S^T k
      dS[i * V + j] = empties ? S(0) : d - x.k[i] * d_error;
    }
    d_q = warp_sum(d_q);
    d_k = warp_sum(d_k);
    if (lane == 0 && to.d_q) to.d_q.put(row * K + i, d_q);
    if (lane == 0 && to.d_k) to.d_k.put(row * K + i, d_k);
  }
  if (to.d_g && warp == 0) {
    S d_g = 0;
    for (int64_t j = lane; j < V; j += 32) d_g += x.d_u[j] * x.error[j];
    d_g = warp_sum(d_g);
    if (lane == 0) to.d_g.put(row, d_g);
  }
}

/// One head per block, segments from the last to the first.
template <class S>
__global__ __launch_bounds__(kReverseThreads) void reverse(DeltaRuleInputs<S> in, Gradients<S> to,
                                                           const S* kept, Elements<S> d_last,
                                                           S* scratch, S* gradients) {
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps, size = K * V;
  const int64_t n = blockIdx.x, segments = (steps + kSpan - 1) / kSpan;
  const Token<S> x(shared_memory<S>(), K, V);
  S *states = scratch + n * kSpan * size, *dS = gradients + n * size;
  each_pair(K, V, [&](int64_t i, int64_t j) {
    dS[i * V + j] = d_last ? d_last[n * size + i * V + j] : S(0);
  });
  for (int64_t segment = segments - 1; segment >= 0; --segment) {
    const int64_t begin = segment * kSpan, count = min(kSpan, steps - begin);
    const S* first = kept + (n * segments + segment) * size;
    const auto before = [&](int64_t c) { return c == 0 ? first : states + c * size; };
    for (int64_t c = 0; c + 1 < count; ++c) {
      x.load(in, to.d_o, n, begin + c);
      const bool empties = in.heads.resets(n, begin + c);
      const S *from = before(c), g = *x.g;
      S* next = states + (c + 1) * size;
      x.find_error(K, V, from, empties);
      each_pair(K, V, [&](int64_t i, int64_t j) {
        next[i * V + j] = (empties ? S(0) : from[i * V + j]) + x.k[i] * (g * x.error[j]);
      });
    }
    for (int64_t c = count - 1; c >= 0; --c) {
      x.load(in, to.d_o, n, begin + c);
      reverse_token(in, x, to, n, begin + c, before(c), dS);
    }
  }
  if (!to.d_state0) return;
  each_pair(K, V,
            [&](int64_t i, int64_t j) { to.d_state0.put(n * size + i * V + j, dS[i * V + j]); });
}

}  // namespace

void delta_rule_backward(const DeltaRuleArgs& args, const DeltaRuleResult& forward,
                         const DeltaRuleGradients& gradients) {
  for_sum_type(args.q.dtype(), "delta_rule", [&](auto tag) {
    using S = decltype(tag);
    const DeltaRuleInputs<S> in(args);
    const Heads& sizes = in.heads;
    const int64_t heads = args.q.dim(0) * sizes.H;
    if (heads == 0) return;
    const Context& on = context(args.q);
    ReverseScratch scratch(heads, sizes.K, sizes.V, dtype_of<S>, on.device);
    const Gradients<S> to = {.d_o = Elements<S>(gradients.d_o),
                             .d_q = Result<S>(gradients.d_q),
                             .d_k = Result<S>(gradients.d_k),
                             .d_v = Result<S>(gradients.d_v),
                             .d_g = Result<S>(gradients.d_g),
                             .d_state0 = Result<S>(gradients.d_state0)};
    const size_t bytes = Token<S>::bytes(sizes.K, sizes.V);
    ask_for_shared(reverse<S>, bytes);
    reverse<S><<<static_cast<unsigned>(heads), kReverseThreads, bytes, on.stream>>>(
        in, to, forward.kept.data<S>(), Elements<S>(gradients.d_state), scratch.states.data<S>(),
        scratch.gradient.data<S>());
    require_launched("delta_rule_backward");
  });
}

}  // namespace regla::cuda
