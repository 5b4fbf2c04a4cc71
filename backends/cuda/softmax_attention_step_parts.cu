#include "backends/cuda/chained.cuh"
#include "backends/cuda/last_block.cuh"
#include "backends/cuda/rotation.cuh"
#include "backends/cuda/softmax_attention_step_parts.cuh"
#include "backends/cuda/tensor_cores.cuh"

// One token against a cache, at the speed of memory, in one launch. The entries of each head are
// cut into parts, so that there are enough blocks for any batch; the block that is done last with a
// head puts its parts together, in their order. A row of 16-byte pieces belongs to G lanes, which
// meet kAhead entries at a time: all their keys and values are on the way before the first score is
// known. The token's own key and value are read from where they are, not from the cache, to which
// one block writes them.
namespace regla::cuda {
namespace {

constexpr int kStepWarps = 8, kStepThreads = 32 * kStepWarps;
constexpr int kStepBlocks = 3;  // of a multiprocessor
constexpr int kAhead = 4;
constexpr int kLeastEntries = 128;                 // of a part, unless there are fewer
constexpr int kMostPairs = 64;                     // of a row that turns
constexpr int kMostParts = 64, kMostHeads = 4096;  // of which there are several parts

/// Blocks that are done, by head, and heads that are done: 0 between two launches, of which one at
/// a time is under way on a device.
__device__ int blocks_done[kMostHeads], heads_done;

struct StepParts {
  int H, K, V, capacity, window, heads, parts, most_parts;
  const void *q, *k, *v;
  void *keys, *values;
  int32_t* used;
  const int32_t* positions;
  int half;               // pairs that turn
  double step;            // of their frequencies: rotation.cuh
  float scale2;           // of scores, for exponentials to base 2
  float *sums, *numbers;  // [parts, B, H, V]; [parts, B, H, 2]: the largest score, the total
  Result<float> o;

  __device__ int64_t row(int n, int s) const { return (int64_t{n / H} * capacity + s) * H + n % H; }
};

/// 16 bytes as numbers.
template <class T>
struct Piece {
  static constexpr int kCount = 16 / sizeof(T);
  float at[kCount];

  __device__ explicit Piece(const uint4& raw) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        at[i] = __uint_as_float(words[i]);
      } else {
        const float2 both = unpacked(words[i]);
        at[2 * i] = both.x;
        at[2 * i + 1] = both.y;
      }
    }
  }
};

template <class T>
__device__ uint4 raw_piece(const void* tensor, int64_t element, bool is_there) {
  if (!is_there) return make_uint4(0, 0, 0, 0);
  return *reinterpret_cast<const uint4*>(static_cast<const T*>(tensor) + element);
}

/// Sines and cosines of the pairs of a token, in shared memory.
struct TurnOfToken {
  float sines[kMostPairs], cosines[kMostPairs];

  /// All threads of a block together; `frequency`: of the pair of this thread.
  __device__ void wind(const StepParts& step, double frequency, int position) {
    const int pair = static_cast<int>(threadIdx.x);
    if (pair < step.half) sin_cos_of(frequency * position, sines[pair], cosines[pair]);
    __syncthreads();
  }
};

/// Elements [at, at + kCount) of row n of a query or key, turned and rounded.
template <class T>
__device__ uint4 turned_piece(const StepParts& step, const TurnOfToken& turn, const void* tensor,
                              int n, int at, bool is_there) {
  const int64_t first = int64_t{n} * step.K;
  const uint4 raw = raw_piece<T>(tensor, first + at, is_there);
  if (!is_there || at >= 2 * step.half) return raw;
  const bool is_low = at < step.half;
  const int pair = is_low ? at : at - step.half;
  const Piece<T> own(raw),
      other(raw_piece<T>(tensor, first + (is_low ? at + step.half : pair), true));
  float y[Piece<T>::kCount];
#pragma unroll
  for (int i = 0; i < Piece<T>::kCount; ++i) {
    const float across = other.at[i] * turn.sines[pair + i];
    y[i] = own.at[i] * turn.cosines[pair + i] + (is_low ? -across : across);
  }
  if constexpr (std::is_same_v<T, float>) {
    return make_uint4(__float_as_uint(y[0]), __float_as_uint(y[1]), __float_as_uint(y[2]),
                      __float_as_uint(y[3]));
  } else {
    return make_uint4(packed(y[0], y[1]), packed(y[2], y[3]), packed(y[4], y[5]),
                      packed(y[6], y[7]));
  }
}

/// What G lanes have seen: this lane's columns of the sum of weighted values, over 2^largest.
template <class T, int G>
struct PartSums {
  static constexpr int kCount = Piece<T>::kCount;
  float sum[kCount] = {}, largest = -std::numeric_limits<float>::infinity(), total = 0;

  __device__ void add(const float (&scores)[kAhead], const uint4 (&values)[kAhead]) {
    float most = largest;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) most = fmaxf(most, scores[a]);
    shrink_to(most);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const float weight = fast_exp2(scores[a] - base());
      const Piece<T> value(values[a]);
      total += weight;
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum[i] = fmaf(weight, value.at[i], sum[i]);
    }
  }

  /// Adds what the lanes that differ in bit `offset` have seen; both have the result.
  __device__ void merge(int offset) {
    const float before = largest;
    shrink_to(fmaxf(before, __shfl_xor_sync(0xffffffffu, before, offset)));
    total += __shfl_xor_sync(0xffffffffu, total, offset);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], offset);
  }

 private:
  /// 0 where nothing was seen yet: -infinity less itself is not a number.
  __device__ float base() const {
    return largest == -std::numeric_limits<float>::infinity() ? 0 : largest;
  }
  __device__ void shrink_to(float most) {
    const float before = largest;
    largest = most;
    const float shrink = fast_exp2(before - base());
    total *= shrink;
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] *= shrink;
  }
};

/// Sums over 2^largest, of several that saw different entries.
struct Joined {
  float largest = -std::numeric_limits<float>::infinity(), total = 0;

  __device__ float factor(float of) const {
    return fast_exp2(of - (largest == -std::numeric_limits<float>::infinity() ? 0 : largest));
  }
};

/// What the warps of a block have seen, in their order: column j of the sum of values on thread j.
template <class T, int G>
__device__ Joined join_warps(const PartSums<T, G>& seen, float& sum) {
  constexpr int kCount = Piece<T>::kCount;
  __shared__ float columns[kStepWarps][G * kCount], largest[kStepWarps], totals[kStepWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < G) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) columns[warp][lane * kCount + i] = seen.sum[i];
  }
  if (lane == 0) {
    largest[warp] = seen.largest;
    totals[warp] = seen.total;
  }
  __syncthreads();
  Joined all;
  for (const float x : largest) all.largest = fmaxf(all.largest, x);
  sum = 0;
  for (int w = 0; w < kStepWarps; ++w) {
    const float factor = all.factor(largest[w]);
    all.total = fmaf(totals[w], factor, all.total);
    if (threadIdx.x < G * kCount) sum = fmaf(columns[w][threadIdx.x], factor, sum);
  }
  return all;
}

/// o of head n from its parts, in slices of parts that are put together in order.
__device__ void join_parts(const StepParts& step, int n) {
  __shared__ float factors[kMostParts], slices[kStepThreads];
  const auto* const numbers = reinterpret_cast<const float2*>(step.numbers) + n;
  if (threadIdx.x < 32) {
    Joined all;
    float2 own[kMostParts / 32];
    for (int i = 0; i < kMostParts / 32; ++i) {
      const int p = static_cast<int>(threadIdx.x) + 32 * i;
      own[i] = p < step.parts ? __ldcg(numbers + int64_t{p} * step.heads)
                              : make_float2(-std::numeric_limits<float>::infinity(), 0);
      all.largest = fmaxf(all.largest, own[i].x);
    }
    all.largest = warp_max(all.largest);
    for (const float2& x : own) all.total += all.factor(x.x) * x.y;
    all.total = warp_sum(all.total);
    for (int i = 0; i < kMostParts / 32; ++i) {
      factors[threadIdx.x + 32 * i] = all.factor(own[i].x) / all.total;
    }
  }
  __syncthreads();
  const int columns = step.V <= 64 ? 64 : 128, count = kStepThreads / columns;
  const int j = static_cast<int>(threadIdx.x) % columns;
  float sum = 0;
  if (j < step.V) {
#pragma unroll 8
    for (int p = static_cast<int>(threadIdx.x) / columns; p < step.parts; p += count) {
      const int64_t row = int64_t{p} * step.heads + n;
      sum = fmaf(factors[p], __ldcg(step.sums + row * step.V + j), sum);
    }
  }
  slices[threadIdx.x] = sum;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= step.V) return;
  for (int slice = 1; slice < count; ++slice) sum += slices[threadIdx.x + slice * columns];
  step.o.put(int64_t{n} * step.V + threadIdx.x, sum);
}

/// Entries [from, to) of a head, of which G lanes each meet every kGroups-th.
template <class T, int G>
__device__ PartSums<T, G> attend_entries(const StepParts& step, const TurnOfToken& turn, int n,
                                         int entry, int from, int to) {
  constexpr int kCount = Piece<T>::kCount, kGroups = kStepThreads / G;
  const int at = static_cast<int>(threadIdx.x) % G * kCount;
  const int group = static_cast<int>(threadIdx.x) / G;
  const bool has_key = at < step.K, has_value = at < step.V;
  const int64_t row = step.row(n, from + group);
  Piece<T> q(turned_piece<T>(step, turn, step.q, n, at, has_key));
  const uint4 new_key = turned_piece<T>(step, turn, step.k, n, at, has_key);
  for (float& x : q.at) x *= step.scale2;
  PartSums<T, G> seen;
  for (int i = 0; i < to - from; i += kGroups * kAhead) {
    uint4 keys[kAhead], values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int s = from + group + i + a * kGroups;
      const bool is_new = s == entry;
      const int64_t r = is_new ? n : row + int64_t{i + a * kGroups} * step.H;
      keys[a] = raw_piece<T>(step.keys, r * step.K + at, s < to && has_key && !is_new);
      if (is_new) keys[a] = new_key;
      values[a] = raw_piece<T>(is_new ? step.v : step.values, r * step.V + at, s < to && has_value);
    }
    float scores[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const Piece<T> key(keys[a]);
      float score = 0;
#pragma unroll
      for (int c = 0; c < kCount; ++c) score = fmaf(q.at[c], key.at[c], score);
#pragma unroll
      for (int offset = G / 2; offset > 0; offset /= 2) {
        score += __shfl_xor_sync(0xffffffffu, score, offset);
      }
      const bool exists = from + group + i + a * kGroups < to;
      scores[a] = exists ? score : -std::numeric_limits<float>::infinity();
    }
    seen.add(scores, values);
  }
  for (int offset = G; offset < 32; offset *= 2) seen.merge(offset);
  return seen;
}

/// The token's key and value become entry `used`.
template <class T, int G>
__device__ void append(const StepParts& step, const TurnOfToken& turn, int n, int entry) {
  const int at = static_cast<int>(threadIdx.x) * Piece<T>::kCount;
  const int64_t row = step.row(n, entry);
  if (at < step.K) {
    *reinterpret_cast<uint4*>(static_cast<T*>(step.keys) + row * step.K + at) =
        turned_piece<T>(step, turn, step.k, n, at, true);
  }
  if (at < step.V) {
    *reinterpret_cast<uint4*>(static_cast<T*>(step.values) + row * step.V + at) =
        raw_piece<T>(step.v, int64_t{n} * step.V + at, true);
  }
}

template <class T, int G>
__global__ __launch_bounds__(kStepThreads, kStepBlocks) void attend_part(StepParts step) {
  const int n = static_cast<int>(blockIdx.x), part = static_cast<int>(blockIdx.y);
  __shared__ TurnOfToken turn;
  let_next_begin();
  const double frequency = exp2(static_cast<int>(threadIdx.x) * step.step);
  await_before();
  turn.wind(step, frequency, step.positions[n / step.H]);
  const int entry = *step.used, end = min(entry + 1, step.capacity);
  const int document = entry - step.positions[n / step.H];
  const int begin = max(0, max(document, step.window > 0 ? end - step.window : 0));
  // Whatever room the cache has: where there are fewer parts, these are enough.
  const int share = max((end - begin + step.most_parts - 1) / step.most_parts, kLeastEntries);
  const int from = begin + part * share, to = min(from + share, end);
  if (from <= entry && entry < to) append<T, G>(step, turn, n, entry);
  float sum;
  const Joined all = join_warps(attend_entries<T, G>(step, turn, n, entry, from, to), sum);
  if (step.parts == 1) {
    if (static_cast<int>(threadIdx.x) < step.V) {
      const float factor = all.factor(all.largest) / all.total;  // as join_parts has it
      step.o.put(int64_t{n} * step.V + threadIdx.x, fmaf(factor, sum, 0.0f));
    }
  } else {
    const int64_t row = int64_t{part} * step.heads + n;
    if (static_cast<int>(threadIdx.x) < step.V) step.sums[row * step.V + threadIdx.x] = sum;
    if (threadIdx.x == 0) {
      reinterpret_cast<float2*>(step.numbers)[row] = make_float2(all.largest, all.total);
    }
    if (!is_last_block(blocks_done + n, step.parts)) return;
    join_parts(step, n);
  }
  // Now every block of this head, and with the last head every block, knows which entry it is.
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(&heads_done, 1) == step.heads - 1) {
    heads_done = 0;
    *step.used = entry + 1;
  }
}

template <class T, int G>
void launch(const SoftmaxAttentionStepArgs& args, const Tensor& o) {
  const Context& on = context(o);
  Tensor keys = args.keys, values = args.values, used = args.used;
  const int64_t heads = args.q.dim(0) * args.q.dim(2), V = args.v.dim(3);
  const int64_t capacity = args.keys.dim(1);
  const int64_t half = args.rotation.turns() ? args.rotation.rotary / 2 : 0;
  const int64_t wanted = on.multiprocessors * kStepBlocks / heads;
  const int64_t most = heads > kMostHeads ? 1 : std::clamp<int64_t>(wanted, 1, kMostParts);
  const int64_t filled = (capacity + kLeastEntries - 1) / kLeastEntries;
  const int64_t parts = std::min(most, std::max<int64_t>(filled, 1));
  Tensor sums = Tensor::empty({parts, heads, V}, DType::F32, on.device);
  Tensor numbers = Tensor::empty({parts, heads, 2}, DType::F32, on.device);
  const StepParts step = {.H = static_cast<int>(args.q.dim(2)),
                          .K = static_cast<int>(args.q.dim(3)),
                          .V = static_cast<int>(V),
                          .capacity = static_cast<int>(capacity),
                          .window = static_cast<int>(std::min(args.window, capacity + 1)),
                          .heads = static_cast<int>(heads),
                          .parts = static_cast<int>(parts),
                          .most_parts = static_cast<int>(most),
                          .q = args.q.raw(),
                          .k = args.k.raw(),
                          .v = args.v.raw(),
                          .keys = keys.raw(),
                          .values = values.raw(),
                          .used = used.data<int32_t>(),
                          .positions = args.rotation.positions.data<int32_t>(),
                          .half = static_cast<int>(half),
                          .step = half > 0 ? -std::log2(args.rotation.base) / half : 0,
                          .scale2 = static_cast<float>(args.scale) * kLog2E,
                          .sums = sums.data<float>(),
                          .numbers = numbers.data<float>(),
                          .o = Result<float>(o)};
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>(parts));
  launch_chained(on, attend_part<T, G>, grid, kStepThreads, 0, step);
}

}  // namespace

bool have_parts(const SoftmaxAttentionStepArgs& args) {
  const auto fits = [](const Tensor& x) {
    const int64_t bytes = x.dim(3) * static_cast<int64_t>(size_of(x.dtype()));
    return bytes % 16 == 0 && x.dim(3) <= 128 && reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0;
  };
  constexpr int64_t kMostEntries = int64_t{1} << 30;
  // A piece turns as a whole.
  const int64_t half = args.rotation.turns() ? args.rotation.rotary / 2 : 0;
  const bool turns_whole = half * static_cast<int64_t>(size_of(args.q.dtype())) % 16 == 0;
  return turns_whole && args.q.dtype() != DType::F64 && args.keys.dim(1) <= kMostEntries &&
         fits(args.q) && fits(args.k) && fits(args.v) && fits(args.keys) && fits(args.values);
}

void attend_by_parts(const SoftmaxAttentionStepArgs& args, const Tensor& o) {
  const bool is_small = args.q.dim(3) <= 64 && args.v.dim(3) <= 64;
  if (args.q.dtype() == DType::BF16) {
    return is_small ? launch<__nv_bfloat16, 8>(args, o) : launch<__nv_bfloat16, 16>(args, o);
  }
  return is_small ? launch<float, 16>(args, o) : launch<float, 32>(args, o);
}

}  // namespace regla::cuda
