#include "backends/cuda/chains.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"
#include "backends/cuda/softmax_attention_tiles.cuh"

// With P = softmax(scores) and D_t = o_t . d_o_t:   d_v += P^T d_o,   dS = P * (d_o v^T - D) *
// scale,   d_q += dS k,   d_k += dS^T q. The weights are computed twice, so that no two blocks
// write to one place: by queries for d_q, by keys for d_k and d_v.
namespace regla::cuda {
namespace {

template <class S>
struct Gradients {
  Elements<S> o, d_o, log_sum;
  S* dots;  // [B, T, H] D
  Result<S> d_q, d_k, d_v;
};

template <class S>
struct Row {
  const Elements<S>& x;
  int64_t first;

  __device__ S operator[](int64_t i) const { return x[first + i]; }
};

/// By a thread per row, in the order of the products of d_o and v: of a lone key nothing is left.
template <class S>
__global__ void find_dots(int64_t rows, int64_t V, Gradients<S> g) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row < rows) g.dots[row] = dot_of<S>(Row<S>{g.d_o, row * V}, Row<S>{g.o, row * V}, V);
}

/// to[i] += the sum over lanes n of factor_n * rows[n][i], over the `size` elements of a row.
template <class S>
__device__ void add_rows(S factor, const S* rows, int64_t size, S* to, int lane) {
  for (int64_t i0 = 0; i0 < size; i0 += 32) {
    const int64_t i = i0 + lane;
    S added = 0;
    for (int n = 0; n < kPartners; ++n) {
      const S f = __shfl_sync(0xffffffffu, factor, n);
      if (f != 0 && i < size) added += f * rows[n * (size + 1) + i];
    }
    if (i < size) to[i] += added;
  }
}

/// A block's shared memory: two kinds of rows of its partners, and for each warp two rows of its
/// own and two sums.
template <class S>
struct Room {
  S *partners_k, *partners_v;  // [kPartners, K + 1], [kPartners, V + 1]
  S *own_k, *own_v, *sum_k, *sum_v;

  static size_t bytes(int64_t K, int64_t V) {
    return static_cast<size_t>(kPartners * (K + V + 2) + 2 * kAttentionWarps * (K + V)) * sizeof(S);
  }
  __device__ Room(int64_t K, int64_t V, int warp) {
    partners_k = shared_memory<S>();
    partners_v = partners_k + kPartners * (K + 1);
    own_k = partners_v + kPartners * (V + 1) + warp * 2 * (K + V);
    own_v = own_k + K;
    sum_k = own_v + V;
    sum_v = sum_k + K;
  }
  /// Rows of the warp's own, zeros where it has none; and empty sums.
  __device__ void start(const Elements<S>& x, int64_t x_start, int64_t K, const Elements<S>& y,
                        int64_t y_start, int64_t V, bool exists, int lane) const {
    for (int64_t i = lane; i < K; i += 32) {
      own_k[i] = exists ? x[x_start + i] : S(0);
      sum_k[i] = 0;
    }
    for (int64_t j = lane; j < V; j += 32) {
      own_v[j] = exists ? y[y_start + j] : S(0);
      sum_v[j] = 0;
    }
  }
};

/// d_q: a warp per query, keys and values as partners.
template <class S>
__global__ void reverse_queries(AttentionInputs<S> in, Gradients<S> g) {
  const int64_t n = blockIdx.y, K = in.K, V = in.V;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t t0 = int64_t{blockIdx.x} * kAttentionWarps, t = t0 + warp;
  const bool exists = t < in.steps;
  const int64_t row = in.query_row(n, t);
  const Room<S> room(K, V, warp);
  room.start(in.q, row * K, K, g.d_o, row * V, V, exists, lane);
  const S log_sum = exists ? g.log_sum[row] : S(0), D = exists ? g.dots[row] : S(0);
  const int64_t last = min(t0 + kAttentionWarps, in.steps) - 1;
  int64_t lowest = in.end(t0);
  for (int64_t other = t0; other <= last; ++other) lowest = min(lowest, in.begin(n, other));
  const int64_t begin = exists ? in.begin(n, t) : 0, end = exists ? in.end(t) : 0;
  for (int64_t s0 = lowest; s0 < in.end(last); s0 += kPartners) {
    const int64_t count = min(int64_t{kPartners}, in.end(last) - s0), s = s0 + lane;
    __syncthreads();
    load_rows(in.k, in.key_row(n, s0) * K, in.H * K, count, K, room.partners_k);
    load_rows(in.v, in.key_row(n, s0) * V, in.H * V, count, V, room.partners_v);
    __syncthreads();
    S d_score = 0;
    if (s >= begin && s < end) {
      const S score = in.scale * dot_of<S>(room.own_k, room.partners_k + lane * (K + 1), K);
      const S d_weight = dot_of<S>(room.own_v, room.partners_v + lane * (V + 1), V);
      d_score = exp(score - log_sum) * (d_weight - D) * in.scale;
    }
    add_rows(d_score, room.partners_k, K, room.sum_k, lane);
  }
  if (!exists) return;
  for (int64_t i = lane; i < K; i += 32) g.d_q.put(row * K + i, room.sum_k[i]);
}

/// d_k and d_v: a warp per key, queries and gradients of outputs as partners. Keys that no query
/// sees have zeros.
template <class S>
__global__ void reverse_keys(AttentionInputs<S> in, Gradients<S> g) {
  const int64_t n = blockIdx.y, K = in.K, V = in.V;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t s0 = int64_t{blockIdx.x} * kAttentionWarps, s = s0 + warp;
  const bool exists = s < in.length;
  const int64_t row = in.key_row(n, s);
  const Room<S> room(K, V, warp);
  room.start(in.k, row * K, K, in.v, row * V, V, exists, lane);
  const int64_t earliest = max(int64_t{0}, s0 - (in.length - in.steps));  // that sees a key here
  for (int64_t t0 = earliest; t0 < in.steps; t0 += kPartners) {
    const int64_t count = min(int64_t{kPartners}, in.steps - t0), t = t0 + lane;
    if (in.window > 0 && in.end(t0) - in.window > s0 + kAttentionWarps) break;
    __syncthreads();
    load_rows(in.q, in.query_row(n, t0) * K, in.H * K, count, K, room.partners_k);
    load_rows(g.d_o, in.query_row(n, t0) * V, in.H * V, count, V, room.partners_v);
    __syncthreads();
    S weight = 0, d_score = 0;
    if (exists && t < in.steps && s < in.end(t) && s >= in.begin(n, t)) {
      const int64_t query = in.query_row(n, t);
      const S score = in.scale * dot_of<S>(room.own_k, room.partners_k + lane * (K + 1), K);
      const S d_weight = dot_of<S>(room.own_v, room.partners_v + lane * (V + 1), V);
      weight = exp(score - g.log_sum[query]);
      d_score = weight * (d_weight - g.dots[query]) * in.scale;
    }
    add_rows(d_score, room.partners_k, K, room.sum_k, lane);
    add_rows(weight, room.partners_v, V, room.sum_v, lane);
  }
  if (!exists) return;
  for (int64_t i = lane; i < K && g.d_k; i += 32) g.d_k.put(row * K + i, room.sum_k[i]);
  for (int64_t j = lane; j < V && g.d_v; j += 32) g.d_v.put(row * V + j, room.sum_v[j]);
}

}  // namespace

void softmax_attention_backward(const SoftmaxAttentionArgs& args, const Tensor& o,
                                const Tensor& log_sum, const Tensor& d_o, Sink d_q, Sink d_k,
                                Sink d_v) {
  if (o.numel() == 0) return;
  if (are_tileable(context(o), args, {&o, &d_o, &d_q.tensor, &d_k.tensor, &d_v.tensor})) {
    return reverse_by_tiles(args, o, log_sum, d_o, d_q, d_k, d_v);
  }
  for_sum_type(args.q.dtype(), "softmax_attention", [&](auto tag) {
    using S = decltype(tag);
    const Context& on = context(o);
    const AttentionInputs<S> in(args);
    Tensor dots = Tensor::empty(log_sum.shape(), dtype_of<S>, on.device);
    const Gradients<S> g = {.o = Elements<S>(o),
                            .d_o = Elements<S>(d_o),
                            .log_sum = Elements<S>(log_sum),
                            .dots = dots.data<S>(),
                            .d_q = Result<S>(d_q),
                            .d_k = Result<S>(d_k),
                            .d_v = Result<S>(d_v)};
    const int64_t rows = log_sum.numel();
    find_dots<<<static_cast<unsigned>((rows + kThreads - 1) / kThreads), kThreads, 0, on.stream>>>(
        rows, in.V, g);
    const size_t bytes = Room<S>::bytes(in.K, in.V);
    const auto heads = static_cast<unsigned>(args.q.dim(0) * in.H);
    const auto blocks = [](int64_t warps) {
      return static_cast<unsigned>((warps + kAttentionWarps - 1) / kAttentionWarps);
    };
    if (d_q) {
      ask_for_shared(reverse_queries<S>, bytes);
      reverse_queries<S>
          <<<dim3(blocks(in.steps), heads), 32 * kAttentionWarps, bytes, on.stream>>>(in, g);
    }
    if (d_k || d_v) {
      ask_for_shared(reverse_keys<S>, bytes);
      reverse_keys<S>
          <<<dim3(blocks(in.length), heads), 32 * kAttentionWarps, bytes, on.stream>>>(in, g);
    }
    require_launched("softmax_attention_backward");
  });
}

}  // namespace regla::cuda
