#include "backends/cuda/softmax_attention_step_parts.cuh"
#include "backends/cuda/tensor_cores.cuh"

// One token against a cache, at the speed of memory: the entries of each head are cut into parts,
// so that there are enough blocks for any batch, and a second launch puts the parts together in
// order. A row of 16-byte pieces belongs to G lanes, which meet kAhead entries at a time: all
// their keys and values are on the way before the first score is known. The token's own key and
// value are read from where they are, not from the cache, to which one block writes them.
namespace regla::cuda {
namespace {

constexpr int kStepWarps = 8, kStepThreads = 32 * kStepWarps;
constexpr int kAhead = 4;
constexpr int kLeastEntries = 64;  // of a part, unless there are fewer
constexpr int kMostParts = 64;

struct StepParts {
  int64_t H, K, V, capacity, window;
  const void *q, *k, *v;
  void *keys, *values;
  const int32_t *used, *positions;
  float scale2;           // of scores, for exponentials to base 2
  float *sums, *numbers;  // [B, H, parts, V]; [B, H, parts, 2]: the largest score, the total
  int parts;

  __device__ int64_t row(int64_t n, int64_t s) const { return (n / H * capacity + s) * H + n % H; }
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

/// What G lanes have seen: this lane's columns of the sum of weighted values, over 2^largest.
template <class T, int G>
struct PartSums {
  static constexpr int kCount = Piece<T>::kCount;
  float sum[kCount] = {}, largest = -std::numeric_limits<float>::infinity(), total = 0;

  __device__ void add(const float (&scores)[kAhead], const uint4 (&values)[kAhead]) {
    float most = largest;
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

/// The warps' sums, put together in order by all threads; V columns at `sums`, the largest score
/// and the total of a part at `numbers`.
template <class T, int G>
__device__ void put_part(const PartSums<T, G>& seen, int V, float* sums, float* numbers) {
  constexpr int kCount = Piece<T>::kCount;
  __shared__ float columns[kStepWarps][G * kCount], largest[kStepWarps], totals[kStepWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < G) {
    for (int i = 0; i < kCount; ++i) columns[warp][lane * kCount + i] = seen.sum[i];
  }
  if (lane == 0) {
    largest[warp] = seen.largest;
    totals[warp] = seen.total;
  }
  __syncthreads();
  const auto j = static_cast<int>(threadIdx.x);
  if (j >= max(V, 1)) return;
  float most = largest[0], sum = 0, total = 0;
  for (int w = 1; w < kStepWarps; ++w) most = fmaxf(most, largest[w]);
  const float base = most == -std::numeric_limits<float>::infinity() ? 0 : most;
  for (int w = 0; w < kStepWarps; ++w) {
    const float shrink = fast_exp2(largest[w] - base);
    sum += columns[w][j] * shrink;
    total += totals[w] * shrink;
  }
  sums[j] = sum;
  if (j == 0) {
    numbers[0] = most;
    numbers[1] = total;
  }
}

template <class T, int G>
__global__ __launch_bounds__(kStepThreads) void attend_part(StepParts step) {
  constexpr int kCount = Piece<T>::kCount, kGroups = kStepThreads / G;
  const int64_t n = blockIdx.y, K = step.K, V = step.V, entry = *step.used;
  const int at = static_cast<int>(threadIdx.x) % G * kCount;
  const int group = static_cast<int>(threadIdx.x) / G;
  const int64_t end = min(entry + 1, step.capacity);
  const int64_t document = entry - step.positions[n / step.H];
  const int64_t lowest = step.window > 0 ? end - step.window : 0;
  const int64_t begin = max(int64_t{0}, max(document, lowest));
  const int64_t share = max((end - begin + step.parts - 1) / step.parts, int64_t{kLeastEntries});
  const int64_t from = begin + blockIdx.x * share, to = min(from + share, end);
  const bool has_key = at < K, has_value = at < V;
  if (from <= entry && entry < to && group == 0) {
    const int64_t row = step.row(n, entry);
    if (has_key) {
      *reinterpret_cast<uint4*>(static_cast<T*>(step.keys) + row * K + at) =
          raw_piece<T>(step.k, n * K + at, true);
    }
    if (has_value) {
      *reinterpret_cast<uint4*>(static_cast<T*>(step.values) + row * V + at) =
          raw_piece<T>(step.v, n * V + at, true);
    }
  }
  Piece<T> q(raw_piece<T>(step.q, n * K + at, has_key));
  for (float& x : q.at) x *= step.scale2;
  PartSums<T, G> seen;
  for (int64_t s0 = from; s0 < to; s0 += kGroups * kAhead) {
    uint4 keys[kAhead], values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t s = s0 + a * kGroups + group, row = step.row(n, s);
      const bool is_new = s == entry;
      keys[a] = raw_piece<T>(is_new ? step.k : step.keys, (is_new ? n : row) * K + at,
                             s < to && has_key);
      values[a] = raw_piece<T>(is_new ? step.v : step.values, (is_new ? n : row) * V + at,
                               s < to && has_value);
    }
    float scores[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const Piece<T> key(keys[a]);
      float score = 0;
#pragma unroll
      for (int i = 0; i < kCount; ++i) score = fmaf(q.at[i], key.at[i], score);
      for (int offset = G / 2; offset > 0; offset /= 2) {
        score += __shfl_xor_sync(0xffffffffu, score, offset);
      }
      const bool exists = s0 + a * kGroups + group < to;
      scores[a] = exists ? score : -std::numeric_limits<float>::infinity();
    }
    seen.add(scores, values);
  }
  for (int offset = G; offset < 32; offset *= 2) seen.merge(offset);
  const int64_t part = n * step.parts + blockIdx.x;
  put_part(seen, static_cast<int>(V), step.sums + part * V, step.numbers + part * 2);
}

/// o of a head from its parts; and there is an entry more.
__global__ void join_parts(StepParts step, Result<float> o, int32_t* used) {
  __shared__ float factors[kMostParts];
  const int64_t n = blockIdx.x;
  if (threadIdx.x < 32) {
    const float2* const numbers = reinterpret_cast<const float2*>(step.numbers) + n * step.parts;
    float most = -std::numeric_limits<float>::infinity(), total = 0;
    for (int p = static_cast<int>(threadIdx.x); p < step.parts; p += 32) {
      most = fmaxf(most, numbers[p].x);
    }
    most = warp_max(most);
    for (int p = static_cast<int>(threadIdx.x); p < step.parts; p += 32) {
      factors[p] = fast_exp2(numbers[p].x - most);
      total += factors[p] * numbers[p].y;
    }
    total = warp_sum(total);
    for (int p = static_cast<int>(threadIdx.x); p < step.parts; p += 32) factors[p] /= total;
  }
  __syncthreads();
  for (auto j = static_cast<int>(threadIdx.x); j < step.V; j += static_cast<int>(blockDim.x)) {
    const float* const sums = step.sums + n * step.parts * step.V + j;
    float sum = 0;
#pragma unroll 8
    for (int p = 0; p < step.parts; ++p) sum = fmaf(factors[p], sums[p * step.V], sum);
    o.put(n * step.V + j, sum);
  }
  if (n == 0 && threadIdx.x == 0) ++*used;
}

template <class T, int G>
void launch(const SoftmaxAttentionStepArgs& args, const Tensor& o) {
  const Context& on = context(o);
  Tensor keys = args.keys, values = args.values, used = args.used;
  const int64_t heads = args.q.dim(0) * args.q.dim(2), V = args.v.dim(3);
  constexpr int64_t kBlocksPerMultiprocessor = 4;
  const int64_t wanted = (on.multiprocessors * kBlocksPerMultiprocessor + heads - 1) / heads;
  const int64_t most = (args.keys.dim(1) + kLeastEntries - 1) / kLeastEntries;
  const int64_t parts = std::clamp<int64_t>(std::min(wanted, most), 1, kMostParts);
  Tensor sums = Tensor::empty({heads, parts, V}, DType::F32, on.device);
  Tensor numbers = Tensor::empty({heads, parts, 2}, DType::F32, on.device);
  const StepParts step = {.H = args.q.dim(2),
                          .K = args.q.dim(3),
                          .V = V,
                          .capacity = args.keys.dim(1),
                          .window = args.window,
                          .q = args.q.raw(),
                          .k = args.k.raw(),
                          .v = args.v.raw(),
                          .keys = keys.raw(),
                          .values = values.raw(),
                          .used = used.data<int32_t>(),
                          .positions = args.positions.data<int32_t>(),
                          .scale2 = static_cast<float>(args.scale * 1.4426950408889634),
                          .sums = sums.data<float>(),
                          .numbers = numbers.data<float>(),
                          .parts = static_cast<int>(parts)};
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(heads));
  attend_part<T, G><<<grid, kStepThreads, 0, on.stream>>>(step);
  join_parts<<<grid.y, V <= 64 ? 64 : 128, 0, on.stream>>>(step, Result<float>(o),
                                                          used.data<int32_t>());
  require_launched("softmax_attention_step");
}

}  // namespace

bool have_parts(const SoftmaxAttentionStepArgs& args) {
  const auto fits = [](const Tensor& x) {
    const int64_t bytes = x.dim(3) * static_cast<int64_t>(size_of(x.dtype()));
    return bytes % 16 == 0 && x.dim(3) <= 128 && reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0;
  };
  return args.q.dtype() != DType::F64 && fits(args.q) && fits(args.k) && fits(args.v) &&
         fits(args.keys) && fits(args.values);
}

void attend_by_parts(const SoftmaxAttentionStepArgs& args, const Tensor& o) {
  const bool is_small = args.q.dim(3) <= 64 && args.v.dim(3) <= 64;
  if (args.q.dtype() == DType::BF16) {
    return is_small ? launch<__nv_bfloat16, 8>(args, o) : launch<__nv_bfloat16, 16>(args, o);
  }
  return is_small ? launch<float, 16>(args, o) : launch<float, 32>(args, o);
}

}  // namespace regla::cuda
