#include "backends/cuda/kernels.h"
#include "backends/cuda/softmax_attention.cuh"
#include "backends/cuda/softmax_attention_step_parts.cuh"
#include "backends/step.h"

// One token against a cache whose length only the device knows: a block per head, whose warps take
// turns at 32 entries and put their sums together in order. For any sizes, and what the faster
// kernels are compared with.
namespace regla::cuda {
namespace {

template <class S>
struct Step {
  int64_t H, K, V, capacity, window;
  Elements<S> q, k, v, keys, values;
  Result<S> new_keys, new_values, o;
  const int32_t *used, *positions;
  S scale;

  __device__ int64_t row(int64_t n, int64_t s) const { return (n / H * capacity + s) * H + n % H; }
};

/// The token's key and value become entry `used`. A cache that is full is left as it is.
template <class S>
__global__ void append_entry(Step<S> step) {
  const int64_t n = blockIdx.x, entry = *step.used;
  if (entry >= step.capacity) return;
  for (int64_t i = threadIdx.x; i < step.K; i += blockDim.x) {
    step.new_keys.put(step.row(n, entry) * step.K + i, step.k[n * step.K + i]);
  }
  for (int64_t j = threadIdx.x; j < step.V; j += blockDim.x) {
    step.new_values.put(step.row(n, entry) * step.V + j, step.v[n * step.V + j]);
  }
}

/// What a warp has seen: sums of weights and of weighted values [V], over e^largest.
template <class S>
struct Seen {
  S* sum;
  S largest = -std::numeric_limits<S>::infinity(), total = 0;

  __device__ void add(const Step<S>& step, const S* q, int64_t n, int64_t s0, int64_t end,
                      int lane) {
    const int64_t s = s0 + lane;
    S score = -std::numeric_limits<S>::infinity();
    if (s < end) {
      S product = 0;
#pragma unroll 4
      for (int64_t i = 0; i < step.K; ++i) product += q[i] * step.keys[step.row(n, s) * step.K + i];
      score = step.scale * product;
    }
    const S highest = warp_max(score), before = largest;
    largest = highest > before ? highest : before;
    const S weight = s < end ? exp(score - largest) : S(0), shrink = exp(before - largest);
    total = total * shrink + warp_sum(weight);
    const auto count = static_cast<int>(min(int64_t{32}, end - s0));
    for (int64_t j0 = 0; j0 < step.V; j0 += 32) {
      const int64_t j = j0 + lane;
      S added = 0;
      for (int m = 0; m < count; ++m) {
        const S w = __shfl_sync(0xffffffffu, weight, m);
        if (j < step.V) added += w * step.values[step.row(n, s0 + m) * step.V + j];
      }
      if (j < step.V) sum[j] = sum[j] * shrink + added;
    }
  }
};

template <class S>
__global__ __launch_bounds__(32 * kAttentionWarps) void attend_once(Step<S> step) {
  const int64_t n = blockIdx.x, entry = *step.used, K = step.K, V = step.V;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  S* q = shared_memory<S>();
  S *sums = q + K, *largest = sums + kAttentionWarps * V, *totals = largest + kAttentionWarps;
  for (int64_t i = threadIdx.x; i < K; i += blockDim.x) q[i] = step.q[n * K + i];
  Seen<S> seen = {sums + warp * V};
  for (int64_t j = lane; j < V; j += 32) seen.sum[j] = 0;
  __syncthreads();
  const int64_t end = min(entry + 1, step.capacity), document = entry - step.positions[n / step.H];
  const int64_t lowest = step.window > 0 ? end - step.window : 0;
  const int64_t begin = max(int64_t{0}, max(document, lowest));
  for (int64_t s0 = begin + warp * 32; s0 < end; s0 += 32 * kAttentionWarps) {
    seen.add(step, q, n, s0, end, lane);
  }
  if (lane == 0) {
    largest[warp] = seen.largest;
    totals[warp] = seen.total;
  }
  __syncthreads();
  S highest = largest[0], total = 0;
  for (int w = 1; w < kAttentionWarps; ++w) highest = largest[w] > highest ? largest[w] : highest;
  for (int w = 0; w < kAttentionWarps; ++w) total += totals[w] * exp(largest[w] - highest);
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    S sum = 0;
    for (int w = 0; w < kAttentionWarps; ++w) sum += sums[w * V + j] * exp(largest[w] - highest);
    step.o.put(n * V + j, sum / total);
  }
}

__global__ void count_entry(int32_t* used) { ++*used; }

}  // namespace

void softmax_attention_step(const SoftmaxAttentionStepArgs& args, Tensor o) {
  if (o.numel() == 0) return;
  if (have_parts(args)) return attend_by_parts(args, o);
  if (args.rotation.turns()) return softmax_attention_step(turned(args), o);
  const Context& on = context(o);
  Tensor used = args.used;
  for_sum_type(args.q.dtype(), "softmax_attention_step", [&](auto tag) {
    using S = decltype(tag);
    const Step<S> step = {.H = args.q.dim(2),
                          .K = args.q.dim(3),
                          .V = args.v.dim(3),
                          .capacity = args.keys.dim(1),
                          .window = args.window,
                          .q = Elements<S>(args.q),
                          .k = Elements<S>(args.k),
                          .v = Elements<S>(args.v),
                          .keys = Elements<S>(args.keys),
                          .values = Elements<S>(args.values),
                          .new_keys = Result<S>(args.keys),
                          .new_values = Result<S>(args.values),
                          .o = Result<S>(o),
                          .used = used.data<int32_t>(),
                          .positions = args.rotation.positions.data<int32_t>(),
                          .scale = static_cast<S>(args.scale)};
    const auto heads = static_cast<unsigned>(args.q.dim(0) * step.H);
    const size_t bytes = static_cast<size_t>(step.K + kAttentionWarps * (step.V + 2)) * sizeof(S);
    append_entry<<<heads, 128, 0, on.stream>>>(step);
    ask_for_shared(attend_once<S>, bytes);
    attend_once<S><<<heads, 32 * kAttentionWarps, bytes, on.stream>>>(step);
  });
  count_entry<<<1, 1, 0, on.stream>>>(used.data<int32_t>());
  require_launched("softmax_attention_step");
}

}  // namespace regla::cuda
