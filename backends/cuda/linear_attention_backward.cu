#include <algorithm>

#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_attention.cuh"
#include "backends/cuda/linear_attention_backward_states.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct LinearAttentionResults {
  Elements<S> d_o;
  Result<S> d_q, d_k, d_u, d_log_a, d_log_b, d_log_s, d_state0;

  explicit LinearAttentionResults(const LinearAttentionGradients& to)
      : d_o(to.d_o),
        d_q(to.d_q),
        d_k(to.d_k),
        d_u(to.d_u),
        d_log_a(to.d_log_a),
        d_log_b(to.d_log_b),
        d_log_s(to.d_log_s),
        d_state0(to.d_state0) {}
};

/// What a block holds of one token, in shared memory.
template <class S>
struct LinearAttentionToken {
  using Inputs = LinearAttentionInputs<S>;
  using Gradients = LinearAttentionResults<S>;

  S *q, *k, *a, *u, *b, *d_o;
  S* d_scalar;   // [K] a row's part of d_log_s
  S *d_u, *d_b;  // [warps, V] sums over the rows of each warp

  static size_t bytes(int64_t K, int64_t V) {
    return static_cast<size_t>(4 * K + (3 + 2 * kReverseWarps) * V) * sizeof(S);
  }
  __device__ LinearAttentionToken(S* shared, int64_t K, int64_t V) {
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

  __device__ void load(const Inputs& in, const Elements<S>& gradient, int64_t n, int64_t t) const {
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

  __device__ void advance(const Inputs& in, int64_t, int64_t, const S* from, S* next) const {
    const int64_t V = in.heads.V;
    each_pair(in.heads.K, V, [&](int64_t i, int64_t j) {
      next[i * V + j] = a[i] * b[j] * from[i * V + j] + k[i] * u[j];
    });
  }

  // core/recurrences/linear_attention.h. Every thread has the same part of both states all the
  // time.
  __device__ void reverse(const Inputs& in, const Gradients& to, int64_t n, int64_t t,
                          const S* before, S* dS) const {
    const int64_t K = in.heads.K, V = in.heads.V, row = in.heads.row(n, t);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    for (int64_t i = warp; i < K; i += kReverseWarps) {
      S d_q = 0, d_k = 0, d_a = 0;
      for (int64_t j = lane; j < V; j += 32) {
        const S factor = a[i] * b[j], decayed = factor * before[i * V + j];
        d_q += d_o[j] * (decayed + k[i] * u[j]);  // o_t[j] = sum_i q[i] S_t[i,j]
        const S d = dS[i * V + j] + q[i] * d_o[j];
        d_k += d * u[j];
        d_u[warp * V + j] += d * k[i];
        d_a += d * decayed;
        d_b[warp * V + j] += d * decayed;
        dS[i * V + j] = d * factor;
      }
      d_q = warp_sum(d_q);
      d_k = warp_sum(d_k);
      d_a = warp_sum(d_a);
      if (lane != 0) continue;
      if (to.d_q) to.d_q.put(row * K + i, d_q);
      if (to.d_k) to.d_k.put(row * K + i, d_k);
      if (to.d_log_a) to.d_log_a.put(row * K + i, d_a);
      d_scalar[i] = d_a;
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
      if (to.d_u) to.d_u.put(row * V + j, sum_of_warps(d_u, V, j));
      if (to.d_log_b) to.d_log_b.put(row * V + j, sum_of_warps(d_b, V, j));
    }
    if (to.d_log_s && warp == 0) {
      S sum = 0;
      for (int64_t i = lane; i < K; i += 32) sum += d_scalar[i];
      sum = warp_sum(sum);
      if (lane == 0) to.d_log_s.put(row, sum);
    }
  }
};

/// Chunks of a segment, so that all blocks are done first: those of whole segments in turns, and
/// then those of what is left of each head, in the gaps of the last turn as far as they fit there.
/// A block spends as long before its first chunk as on one and a half; the sums of segments take a
/// quarter of a chunk's time for each of the longest behind the first, and that of two more.
template <int N>
int segment_of(const Context& on, int64_t heads, int chunks) {
  constexpr int kFewest = 4, kBlocksPerMultiprocessor = N == 64 ? 2 : 1;
  const int64_t room = int64_t{kBlocksPerMultiprocessor} * on.multiprocessors;
  const auto turns_of = [&](int64_t blocks) { return (blocks + room - 1) / room; };
  const auto time_of = [](int64_t length) { return 2 * length + 3; };
  const auto time_with = [&](int segment) {
    const int64_t whole = heads * (chunks / segment), turns = turns_of(whole);
    const int64_t sums = segment < chunks ? 4 + std::min(segment, chunks - segment) / 2 : 0;
    const int64_t time = sums + turns * time_of(segment), rest = time_of(chunks % segment);
    if (chunks % segment == 0) return time;
    const int64_t in_gaps = (turns * room - whole) * (time_of(segment) / rest);
    return time + turns_of(std::max<int64_t>(0, heads - in_gaps)) * rest;
  };
  int best = chunks;
  for (int segment = kFewest; segment < chunks; ++segment) {
    if (time_with(segment) < time_with(best)) best = segment;
  }
  return best;
}

/// All of it by the kernels of a size and orientation.
template <int N, bool kTurned>
void launch_chunks(const Context& on, ChunkedBackward& p, int64_t heads) {
  p.segment = segment_of<N>(on, heads, p.chunks);
  const int segments = (p.chunks + p.segment - 1) / p.segment;
  const auto blocks = static_cast<unsigned>(heads);
  const int64_t size = int64_t{p.fading.size} * p.steady.size;
  Tensor ends, totals;
  if (segments > 1) {
    ends = Tensor::empty({heads, segments - 1, size}, DType::F32, on.device);
    totals = Tensor::empty({heads, segments - 1, p.fading.size}, DType::F32, on.device);
    float *const parts = ends.data<float>(), *const decays = totals.data<float>();
    constexpr size_t kBytes = sizeof(SegmentMemory<N>);
    ask_for_shared(sum_segments<N, kTurned>, kBytes);
    sum_segments<N, kTurned>
        <<<dim3(blocks, segments - 1), 2 * N, kBytes, on.stream>>>(p, parts, decays);
    const auto pieces = static_cast<unsigned>((size + 255) / 256);
    join_segments<kTurned><<<dim3(blocks, pieces), 256, 0, on.stream>>>(p, segments, parts, decays);
    p.d_ends = parts;
  }
  constexpr size_t kBytes = sizeof(BackwardMemory<N>);
  ask_for_shared(reverse_chunks<N, kTurned>, kBytes);
  reverse_chunks<N, kTurned><<<dim3(blocks, segments), 2 * N, kBytes, on.stream>>>(p);
  require_launched("linear_attention_backward");
}

const Bf16* narrow(const Tensor& x) { return static_cast<const Bf16*>(storage_of<float>(x)); }

/// Whether one axis decays at most, and all can be read and written in pieces of 16 bytes.
bool reverses_in_chunks(const LinearAttentionArgs& args, const LinearAttentionGradients& to) {
  const auto is_aligned = [](const Tensor& x) {
    return !x.defined() || reinterpret_cast<uintptr_t>(storage_of<float>(x)) % 16 == 0;
  };
  return args.q.dim(1) > 0 && !(args.log_a && args.log_b) && is_aligned(to.d_o) &&
         is_aligned(to.d_q.tensor) && is_aligned(to.d_k.tensor) && is_aligned(to.d_u.tensor) &&
         is_aligned(to.d_log_a.tensor) && is_aligned(to.d_log_b.tensor);
}

void reverse_in_chunks(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                       const LinearAttentionGradients& to) {
  const int64_t B = args.q.dim(0), T = args.q.dim(1), H = args.q.dim(2), heads = B * H;
  const int K = static_cast<int>(args.q.dim(3)), V = static_cast<int>(args.u.dim(3));
  if (heads == 0) return;
  const BackwardAxis keys = {narrow(args.q),
                             narrow(args.k),
                             narrow(args.log_a),
                             Result<float>(to.d_q),
                             Result<float>(to.d_k),
                             Result<float>(to.d_log_a),
                             K};
  const BackwardAxis values = {narrow(to.d_o),
                               narrow(args.u),
                               narrow(args.log_b),
                               Result<float>(),
                               Result<float>(to.d_u),
                               Result<float>(to.d_log_b),
                               V};
  const bool turned = args.log_a.defined();
  ChunkedBackward p = {};
  p.fading = turned ? keys : values;
  p.steady = turned ? values : keys;
  p.log_s = args.log_s ? args.log_s.data<float>() : nullptr;
  p.reset = args.reset ? args.reset.data<int32_t>() : nullptr;
  p.kept = narrow(forward.kept);
  p.last = forward.state.data<float>();
  p.d_last = to.d_state ? to.d_state.data<float>() : nullptr;
  p.d_log_s = Result<float>(to.d_log_s);
  p.d_first = Result<float>(to.d_state0);
  p.steps = static_cast<int>(T);
  p.H = static_cast<int>(H);
  p.chunks = static_cast<int>((T + kChunkTokens - 1) / kChunkTokens);
  const Context& on = context(args.q);
  if (K <= 64 && V <= 64) {
    turned ? launch_chunks<64, true>(on, p, heads) : launch_chunks<64, false>(on, p, heads);
  } else {
    turned ? launch_chunks<128, true>(on, p, heads) : launch_chunks<128, false>(on, p, heads);
  }
}

}  // namespace

void linear_attention_backward(const LinearAttentionArgs& args, const RecurrenceResult& forward,
                               const LinearAttentionGradients& gradients) {
  RecurrenceResult states = forward;
  if (takes_chunks(args)) {
    if (reverses_in_chunks(args, gradients)) return reverse_in_chunks(args, forward, gradients);
    states.kept = Tensor::empty(forward.kept.shape(), DType::F32, forward.kept.device());
    convert(forward.kept, states.kept);
  }
  reverse_all<LinearAttentionToken>("linear_attention_backward", args, states, gradients);
}

}  // namespace regla::cuda
