#include "backends/cuda/chains.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/softmax_attention_tiles.cuh"

namespace regla::cuda {
namespace {

/// One query of a warp: its row, the sum of weighted values so far, the largest score and the sum
/// of exponentials.
template <class S>
struct Query {
  S *q, *sum;  // [K], [V] in shared memory
  S largest = -std::numeric_limits<S>::infinity(), total = 0;

  /// Adds keys [s0, s0 + kPartners), of which this query sees those in [begin, end).
  __device__ void add(const AttentionInputs<S>& in, const S* keys, const S* values, int64_t s0,
                      int64_t begin, int64_t end, int lane) {
    const int64_t s = s0 + lane;
    const bool sees = s >= begin && s < end;
    const S score = sees ? in.scale * dot_of<S>(q, keys + lane * (in.K + 1), in.K)
                         : -std::numeric_limits<S>::infinity();
    const unsigned seen = __ballot_sync(0xffffffffu, sees);
    if (seen == 0) return;
    const S highest = warp_max(score), before = largest;
    largest = highest > before ? highest : before;
    const S weight = sees ? exp(score - largest) : S(0), shrink = exp(before - largest);
    total = total * shrink + warp_sum(weight);
    for (int64_t j0 = 0; j0 < in.V; j0 += 32) {
      const int64_t j = j0 + lane;
      S added = 0;
      for (int n = 0; n < kPartners; ++n) {
        const S w = __shfl_sync(0xffffffffu, weight, n);
        if ((seen >> n & 1u) != 0 && j < in.V) added += w * values[n * (in.V + 1) + j];
      }
      if (j < in.V) sum[j] = sum[j] * shrink + added;
    }
  }
};

template <class S>
size_t shared_bytes(int64_t K, int64_t V) {
  return static_cast<size_t>(kPartners * (K + V + 2) + kAttentionWarps * (K + V)) * sizeof(S);
}

template <class S>
__global__ void attend(AttentionInputs<S> in, Result<S> o, Result<S> log_sum) {
  const int64_t n = blockIdx.y, K = in.K, V = in.V;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t t0 = int64_t{blockIdx.x} * kAttentionWarps, t = t0 + warp;
  const bool exists = t < in.steps;
  S* keys = shared_memory<S>();
  S *values = keys + kPartners * (K + 1), *own = values + kPartners * (V + 1) + warp * (K + V);
  Query<S> query = {own, own + K};
  for (int64_t i = lane; i < K; i += 32)
    query.q[i] = exists ? in.q[in.query_row(n, t) * K + i] : S(0);
  for (int64_t j = lane; j < V; j += 32) query.sum[j] = 0;
  const int64_t last = min(t0 + kAttentionWarps, in.steps) - 1;
  int64_t lowest = in.end(t0);
  for (int64_t other = t0; other <= last; ++other) lowest = min(lowest, in.begin(n, other));
  const int64_t begin = exists ? in.begin(n, t) : 0, end = exists ? in.end(t) : 0;
  for (int64_t s0 = lowest; s0 < in.end(last); s0 += kPartners) {
    const int64_t count = min(int64_t{kPartners}, in.end(last) - s0);
    __syncthreads();
    load_rows(in.k, in.key_row(n, s0) * K, in.H * K, count, K, keys);
    load_rows(in.v, in.key_row(n, s0) * V, in.H * V, count, V, values);
    __syncthreads();
    query.add(in, keys, values, s0, begin, end, lane);
  }
  if (!exists) return;
  const S inverse = 1 / query.total;
  for (int64_t j = lane; j < V; j += 32) {
    o.put(in.query_row(n, t) * V + j, query.sum[j] * inverse);
  }
  if (lane == 0) log_sum.put(in.query_row(n, t), query.largest + log(query.total));
}

}  // namespace

void softmax_attention(const SoftmaxAttentionArgs& args, Tensor o, Tensor log_sum) {
  if (o.numel() == 0) return;
  if (are_tileable(context(o), args, {&o})) return attend_by_tiles(args, o, log_sum);
  for_sum_type(args.q.dtype(), "softmax_attention", [&](auto tag) {
    using S = decltype(tag);
    const Context& on = context(o);
    const AttentionInputs<S> in(args);
    const size_t bytes = shared_bytes<S>(in.K, in.V);
    ask_for_shared(attend<S>, bytes);
    const dim3 grid(static_cast<unsigned>((in.steps + kAttentionWarps - 1) / kAttentionWarps),
                    static_cast<unsigned>(args.q.dim(0) * in.H));
    attend<S>
        <<<grid, 32 * kAttentionWarps, bytes, on.stream>>>(in, Result<S>(o), Result<S>(log_sum));
    require_launched("softmax_attention");
  });
}

}  // namespace regla::cuda
