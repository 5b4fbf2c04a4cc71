#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct Gradients {
  Elements<S> d_o;
  Result<S> d_q, d_k, d_u, d_log_a, d_log_b, d_log_s, d_state0;
};

/// What a block holds of one token, in shared memory.
template <class S>
struct Token {
  S *q, *k, *a, *u, *b, *d_o;
  S* d_scalar;   // [K] a row's part of d_log_s
  S *d_u, *d_b;  // [warps, V] sums over the rows of each warp

  static size_t bytes(int64_t K, int64_t V) {
    return static_cast<size_t>(4 * K + (3 + 2 * kReverseWarps) * V) * sizeof(S);
  }
  __device__ Token(S* shared, int64_t K, int64_t V) {
    q = shared;
    k = q + K;
    a = k + K;
    d_scalar = a + K;
    u = d_scalar + K;
    b = u + V;
    d_o = b + V;
    d_u = d_o + V;
    d_b = d_u + kReverseWarps * V;
  }

  __device__ void load(const LinearAttentionInputs<S>& in, const Elements<S>& gradient, int64_t n,
                       int64_t t) const {
    const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
    __syncthreads();  // nobody reads the token before any more
    for (int64_t i = threadIdx.x; i < K; i += blockDim.x) {
      q[i] = in.q[row * K + i];
      k[i] = in.k[row * K + i];
      a[i] = in.key_factor(n, t, i);
    }
    for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
      u[j] = in.u[row * V + j];
      b[j] = in.value_factor(n, t, j);
      d_o[j] = gradient[row * V + j];
    }
    for (int64_t j = threadIdx.x; j < kReverseWarps * V; j += blockDim.x) d_u[j] = d_b[j] = 0;
    __syncthreads();
  }
};

/// Reverses one token (core/recurrences/linear_attention.h). `before` is the state before it; `dS`
/// comes in as the gradient of the state after it and leaves as that of the state before it. Every
/// thread has the same part of both all the time.
template <class S>
__device__ void reverse_token(const LinearAttentionInputs<S>& in, const Token<S>& x,
                              const Gradients<S>& g, int64_t n, int64_t t, const S* before, S* dS) {
  const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t i = warp; i < K; i += kReverseWarps) {
    S d_q = 0, d_k = 0, d_a = 0;
    for (int64_t j = lane; j < V; j += 32) {
      const S factor = x.a[i] * x.b[j], decayed = factor * before[i * V + j];
      d_q += x.d_o[j] * (decayed + x.k[i] * x.u[j]);  // o_t[j] = sum_i q[i] S_t[i,j]
      const S d = dS[i * V + j] + x.q[i] * x.d_o[j];
      d_k += d * x.u[j];
      x.d_u[warp * V + j] += d * x.k[i];
      d_a += d * decayed;
      x.d_b[warp * V + j] += d * decayed;
      dS[i * V + j] = d * factor;
    }
    d_q = warp_sum(d_q);
    d_k = warp_sum(d_k);
    d_a = warp_sum(d_a);
    if (lane != 0) continue;
    if (g.d_q) g.d_q.put(row * K + i, d_q);
    if (g.d_k) g.d_k.put(row * K + i, d_k);
    if (g.d_log_a) g.d_log_a.put(row * K + i, d_a);
    x.d_scalar[i] = d_a;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    if (g.d_u) g.d_u.put(row * V + j, sum_of_warps(x.d_u, V, j));
    if (g.d_log_b) g.d_log_b.put(row * V + j, sum_of_warps(x.d_b, V, j));
  }
  if (g.d_log_s && warp == 0) {
    S sum = 0;
    for (int64_t i = lane; i < K; i += 32) sum += x.d_scalar[i];
    sum = warp_sum(sum);
    if (lane == 0) g.d_log_s.put(row, sum);
  }
}

/// One head per block, segments from the last to the first.
template <class S>
__global__ __launch_bounds__(kReverseThreads) void reverse(LinearAttentionInputs<S> in,
                                                           Gradients<S> g, const S* kept,
                                                           Elements<S> d_last, S* scratch,
                                                           S* gradients) {
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
      x.load(in, g.d_o, n, begin + c);
      const S* from = before(c);
      S* to = states + (c + 1) * size;
      each_pair(K, V, [&](int64_t i, int64_t j) {
        to[i * V + j] = x.a[i] * x.b[j] * from[i * V + j] + x.k[i] * x.u[j];
      });
    }
    for (int64_t c = count - 1; c >= 0; --c) {
      x.load(in, g.d_o, n, begin + c);
      reverse_token(in, x, g, n, begin + c, before(c), dS);
    }
  }
  if (!g.d_state0) return;
  each_pair(K, V,
            [&](int64_t i, int64_t j) { g.d_state0.put(n * size + i * V + j, dS[i * V + j]); });
}

}  // namespace

void linear_attention_backward(const LinearAttentionArgs& args,
                               const LinearAttentionResult& forward,
                               const LinearAttentionGradients& gradients) {
  for_sum_type(args.q.dtype(), "linear_attention", [&](auto tag) {
    using S = decltype(tag);
    const LinearAttentionInputs<S> in(args);
    const Heads& sizes = in.heads;
    const int64_t heads = args.q.dim(0) * sizes.H;
    if (heads == 0) return;
    const Context& on = context(args.q);
    ReverseScratch scratch(heads, sizes.K, sizes.V, dtype_of<S>, on.device);
    const Gradients<S> to = {.d_o = Elements<S>(gradients.d_o),
                             .d_q = Result<S>(gradients.d_q),
                             .d_k = Result<S>(gradients.d_k),
                             .d_u = Result<S>(gradients.d_u),
                             .d_log_a = Result<S>(gradients.d_log_a),
                             .d_log_b = Result<S>(gradients.d_log_b),
                             .d_log_s = Result<S>(gradients.d_log_s),
                             .d_state0 = Result<S>(gradients.d_state0)};
    const size_t bytes = Token<S>::bytes(sizes.K, sizes.V);
    ask_for_shared(reverse<S>, bytes);
    reverse<S><<<static_cast<unsigned>(heads), kReverseThreads, bytes, on.stream>>>(
        in, to, forward.kept.data<S>(), Elements<S>(gradients.d_state), scratch.states.data<S>(),
        scratch.gradient.data<S>());
    require_launched("linear_attention_backward");
  });
}

}  // namespace regla::cuda
