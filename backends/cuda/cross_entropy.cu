#include <cuda_fp16.h>

#include <algorithm>

#include "backends/copies.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/precise_math.cuh"
#include "backends/cuda/rows.cuh"
#include "backends/cuda/score_slice.cuh"
#include "backends/cuda/tensor_cores.cuh"

// Rows by slices: the scores of a slice, the losses and the gradients of the scores by one kernel,
// and two products of those. The gradient of the weights adds up over the slices in the sum type.
//
// Scores of BF16 operands are F16, whose mantissa has three bits more: they lose a tenth of what
// was lost as the operands were rounded, where BF16 would be off by 0.06 at 16, and a probability
// by as much. Operands of that product are F16, too, of which BF16 numbers lose nothing between
// 2^-14 and 2^16; the hidden ones are divided by kHalfUnit, so that they and the scores may be
// larger. Other scores are of the sum type. The gradients of the scores, operands of products, take
// the scores' place where they are as wide.
namespace regla::cuda {
namespace {

constexpr float kHalfUnit = 16;  // see above

/// What scores are counted in that are stored as T.
template <class T>
constexpr float unit_of = std::is_same_v<T, __half> ? kHalfUnit : 1;

template <class T, int W>
__device__ void widen(const Pack<T, W>& from, float (&to)[W]) {
#pragma unroll
  for (int w = 0; w < W; ++w) to[w] = static_cast<float>(from.v[w]);
}

/// Pack i of `to` from elements [i W, i W + W).
template <int W>
struct HalfPack {
  Typed<__nv_bfloat16> from;
  Pack<__half, W>* to;
  float factor;

  __device__ void operator()(int64_t i) const {
    float v[W];
    from.load(i * W, v);
    Pack<__half, W> pack;
#pragma unroll
    for (int w = 0; w < W; ++w) pack.v[w] = __float2half_rn(factor * v[w]);
    to[i] = pack;
  }
};

void* raw_of(Tensor x) { return x.raw(); }

/// Elements of BF16, times `factor`, as F16 in a tensor that says BF16.
Tensor halved(const Context& on, const Tensor& x, float factor) {
  Tensor to = Tensor::empty_like(x);
  const auto fill = [&](auto width) {
    constexpr int W = decltype(width)::value;
    const Typed<__nv_bfloat16> from(x);
    auto* const halves = static_cast<Pack<__half, W>*>(to.raw());
    for_each(on, x.numel() / W, HalfPack<W>{from, halves, factor});
  };
  if (x.numel() % kWidest == 0 && are_aligned<kWidest>(x)) {
    fill(std::integral_constant<int, kWidest>{});
  } else {
    fill(std::integral_constant<int, 1>{});
  }
  return to;
}

// loss = -log softmax(row)[target];  d_score = scale * (softmax(row) - one_hot(target))
template <class S>
struct ScoreRows {
  int64_t rows, vocab, pitch;
  Tensor scores;  // [rows, pitch], F16 where it says BF16; what lies behind the vocabulary is read
                  // beside it and counts for nothing
  const int32_t* targets;
  S scale;
  Numbers losses;
  Tensor d_scores;  // like the scores, maybe in their place; or undefined
};

// For rows of any length and type. Bytes: scores and gradients once, as far as registers and the
// nearest caches hold a row.
template <class S, int W>
struct AnyRow {
  int64_t vocab, pitch;
  Elements<S> scores;
  const int32_t* targets;
  S scale;
  Numbers losses;
  Result<S> d_scores;

  __device__ void operator()(const Team& team, int64_t row) const {
    constexpr int kHeld = 6;  // loads of a row that stay in a thread's registers
    const int64_t first = row * pitch;
    const int32_t target = team.is_active ? targets[row] : -1;
    const S score = team.leads() && target >= 0 ? scores[first + target] : S(0);
    const HeldRow<S, W, kHeld> held(team, scores, first, pitch);
    S largest = -std::numeric_limits<S>::infinity(), sum = 0;
    held.each([&](int64_t j, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        if (j + w < vocab) largest = largest > v[w] ? largest : v[w];
      }
    });
    largest = team.max(largest);
    held.each([&](int64_t j, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) {
        if (j + w < vocab) sum += exp(v[w] - largest);
      }
    });
    sum = team.sum(sum);
    if (team.leads()) {
      const double loss = log(static_cast<double>(sum)) + largest - score;
      losses.set(row, target < 0 ? 0.0 : loss);
    }
    if (!d_scores) return;
    const S factor = scale / sum;
    held.each([&](int64_t j, const S(&v)[W]) {
      S d[W];
      for (int w = 0; w < W; ++w) {
        d[w] = target < 0 ? S(0) : factor * exp(v[w] - largest) - (j + w == target ? scale : S(0));
      }
      d_scores.put(first + j, d);
    });
  }
};

template <class S>
void any_rows(const Context& on, const ScoreRows<S>& a) {
  constexpr int W = std::is_same_v<S, float> ? kWide : 1;
  for_each_row<W, 6, 1024>(on, a.rows, a.pitch,
                           AnyRow<S, W>{.vocab = a.vocab,
                                        .pitch = a.pitch,
                                        .scores = Elements<S>(a.scores),
                                        .targets = a.targets,
                                        .scale = a.scale,
                                        .losses = a.losses,
                                        .d_scores = Result<S>(a.d_scores)});
}

// A row lies in the shared memory of a block, in places of 16 bytes of which every thread brings
// and reads its own. It is read once for maximum and sum, as it arrives; and once for the
// gradients, while the next row of this block arrives in its places. Bytes: scores and gradients
// once.
template <class T, int Threads>
struct HeldScores {
  static constexpr int kSize = 16 / sizeof(T), kStep = Threads * kSize;
  static constexpr int kPlaces = 14, kAtOnce = 7;
  static constexpr float kUnit = unit_of<T>, kLog2Unit = kLog2E * kUnit;
  static constexpr bool kIsExact = std::is_same_v<T, float>;

  int64_t rows;
  int vocab, pitch;
  const T* scores;
  const int32_t* targets;
  float scale;
  Numbers losses;
  Result<float> d_scores;

  using Place = Pack<T, kSize>;

  __device__ static int index(int p) { return p * kStep + static_cast<int>(threadIdx.x) * kSize; }
  __device__ static Place& place(int p) {
    extern __shared__ uint4 held[];
    return reinterpret_cast<Place&>(held[p * Threads + threadIdx.x]);
  }

  /// Every call ends a group, also one that brings nothing.
  __device__ void bring(int64_t row, int p) const {
    if (row < rows && index(p) < pitch) copy_ahead(&place(p), scores + row * pitch + index(p));
    end_group();
  }

  /// In units of kUnit; -infinity behind the vocabulary.
  __device__ void read(int p, float (&v)[kSize]) const {
    widen(place(p), v);
    if (index(p) + kSize <= vocab) return;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (index(p) + i >= vocab) v[i] = -std::numeric_limits<float>::infinity();
    }
  }

  /// e^(kUnit (x - largest)), where `shift` is that of `largest`. Scores in F32 are worth more than
  /// the error of a product with log2 e.
  __device__ static float exponential(float x, float shift) {
    return kIsExact ? precise_exp(x - shift) : fast_exp2(fmaf(x, kLog2Unit, -shift));
  }
  /// Where all is -infinity so far, any finite shift gives 0.
  __device__ static float shift_of(float largest) {
    if (largest == -std::numeric_limits<float>::infinity()) return 0;
    return kIsExact ? largest : largest * kLog2Unit;
  }

  struct Sum {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;  // of exponentials

    __device__ void add(const float (&v)[kSize]) {
      float next = largest;
#pragma unroll
      for (int i = 0; i < kSize; ++i) next = next > v[i] ? next : v[i];
      const float shift = shift_of(next);
      sum *= exponential(largest, shift);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum += exponential(v[i], shift);
      largest = next;
    }
    /// Of all lanes.
    __device__ void gather() {
      const Team warp = {32, 0, true};
      const float next = warp.max(largest);
      sum = warp.sum(sum * exponential(largest, shift_of(next)));
      largest = next;
    }
  };

  /// Of the row in shared memory, on every thread; `warps` is written again in the next but one.
  __device__ Sum sum_of_row(float2 (&warps)[32]) const {
    Sum sum;
#pragma unroll
    for (int p = 0; p < kPlaces; ++p) {
      await_groups<kPlaces - 1>();
      float v[kSize];
      if (index(p) < vocab) {
        read(p, v);
        sum.add(v);
      }
      end_group();
    }
    sum.gather();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = {sum.largest, sum.sum};
    __syncthreads();  // from here on the row may be written over
    const float2 of_warp = warps[threadIdx.x % (Threads / 32)];
    sum = {of_warp.x, threadIdx.x % 32 < Threads / 32 ? of_warp.y : 0};
    sum.gather();
    return sum;
  }

  __device__ void put_loss(int64_t row, int32_t target, const Sum& sum) const {
    if (target < 0) {
      if (threadIdx.x == 0) losses.set(row, 0);
    } else if (target % kStep / kSize == static_cast<int>(threadIdx.x)) {
      const auto score = static_cast<float>(place(target / kStep).v[target % kSize]);
      const double below = static_cast<double>(sum.largest) - score;
      losses.set(row, log(static_cast<double>(sum.sum)) + kUnit * below);
    }
  }

  /// Of the places from `first` on, which are all read before the first is written.
  __device__ void put_gradients(int64_t row, int32_t target, const Sum& sum, int first) const {
    Place read_places[kAtOnce];
#pragma unroll
    for (int p = 0; p < kAtOnce; ++p) {
      if (index(first + p) < pitch) read_places[p] = place(first + p);
    }
    const float shift = shift_of(sum.largest), factor = target < 0 ? 0 : scale / sum.sum;
#pragma unroll
    for (int p = 0; p < kAtOnce; ++p) {
      const int at = index(first + p);
      if (at >= pitch) return;
      float v[kSize];
      widen(read_places[p], v);
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        v[i] = at + i < vocab ? factor * exponential(v[i], shift) : 0;
        if (at + i == target) v[i] -= scale;
      }
      d_scores.set(row * pitch + at, v);
    }
  }
};

template <class T, int Threads>
__global__ __launch_bounds__(Threads, 1024 / Threads) void held_rows(HeldScores<T, Threads> a) {
  using Row = HeldScores<T, Threads>;
  __shared__ float2 warps[2][32];
  int64_t row = blockIdx.x;
  for (int p = 0; p < Row::kPlaces; ++p) a.bring(row, p);
  for (int turn = 0; row < a.rows; row += gridDim.x, turn ^= 1) {
    const int32_t target = a.targets[row];
    const auto sum = a.sum_of_row(warps[turn]);
    a.put_loss(row, target, sum);
#pragma unroll
    for (int first = 0; first < Row::kPlaces; first += Row::kAtOnce) {
      if (a.d_scores) a.put_gradients(row, target, sum, first);
#pragma unroll
      for (int p = 0; p < Row::kAtOnce; ++p) a.bring(row + gridDim.x, first + p);
    }
  }
}

/// Shared memory of a block that holds a row; 0 where it does not fit.
template <class T, int Threads>
size_t bytes_to_hold(const Context& on, int64_t pitch) {
  using Row = HeldScores<T, Threads>;
  const int64_t places = (pitch + Row::kStep - 1) / Row::kStep, bytes = places * Threads * 16;
  int most = 0;
  require(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, on.device.index),
          "ask for the size of shared memory");
  return places > Row::kPlaces || bytes + 1024 > most ? 0 : static_cast<size_t>(bytes);
}

/// Whether the rows of scores of that type are held.
template <class T>
bool are_held(const Context& on, int64_t pitch) {
  return bytes_to_hold<T, 512>(on, pitch) > 0 || bytes_to_hold<T, 1024>(on, pitch) > 0;
}

template <class T, int Threads>
void hold_rows(const Context& on, const ScoreRows<float>& a) {
  const size_t bytes = bytes_to_hold<T, Threads>(on, a.pitch);
  require(cudaFuncSetAttribute(held_rows<T, Threads>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "ask for shared memory");
  const HeldScores<T, Threads> rows = {.rows = a.rows,
                                       .vocab = static_cast<int>(a.vocab),
                                       .pitch = static_cast<int>(a.pitch),
                                       .scores = static_cast<const T*>(raw_of(a.scores)),
                                       .targets = a.targets,
                                       .scale = a.scale,
                                       .losses = a.losses,
                                       .d_scores = Result<float>(a.d_scores)};
  const int64_t blocks = std::min<int64_t>(a.rows, on.multiprocessors * (1024 / Threads));
  held_rows<<<static_cast<unsigned>(blocks), Threads, bytes, on.stream>>>(rows);
  require_launched("cross_entropy");
}

template <class T>
void hold_rows(const Context& on, const ScoreRows<float>& a) {
  if (bytes_to_hold<T, 512>(on, a.pitch) > 0) return hold_rows<T, 512>(on, a);
  hold_rows<T, 1024>(on, a);
}

void losses_of(const Context& on, const ScoreRows<float>& a) {
  if (a.scores.dtype() == DType::BF16) return hold_rows<__half>(on, a);
  are_held<float>(on, a.pitch) ? hold_rows<float>(on, a) : any_rows(on, a);
}
void losses_of(const Context& on, const ScoreRows<double>& a) { any_rows(on, a); }

/// Operands of the products of all slices: hidden [R, D], weight [vocab, D] of the same type.
struct Head {
  Tensor hidden, weight;
  Tensor left, right;  // the same as operands of the scores
  bool is_half;        // F16

  Head(const Context& on, const CrossEntropyArgs& args, DType dtype)
      : hidden(converted(args.hidden, dtype)), weight(converted(args.weight, dtype)) {
    is_half = dtype == DType::BF16 && are_held<__half>(on, padded(weight.dim(0)));
    left = is_half ? halved(on, hidden, 1 / kHalfUnit) : hidden;
    right = is_half ? halved(on, weight, 1) : weight;
  }

  void compute_scores(const ScoreSlice& slice, const Tensor& scores) const {
    const auto as_scores = [this](Matrices x) {
      x.is_half = is_half;
      return x;
    };
    multiply(slice.on, {.a = as_scores(Matrices::of(left.slice(slice.begin, slice.end))),
                        .b = as_scores(Matrices::of(right)),
                        .c = as_scores(slice.part_of(scores)),
                        .transpose_b = true});
  }
};

/// So that nobody reads what nobody wrote.
void clear_padding(const Context& on, const Tensor& scores, int64_t vocab) {
  const auto bytes = [&](int64_t n) { return static_cast<size_t>(n) * size_of(scores.dtype()); };
  const int64_t rows = scores.dim(0), pitch = scores.dim(1);
  if (vocab == pitch) return;
  require(cudaMemset2DAsync(static_cast<char*>(raw_of(scores)) + bytes(vocab), bytes(pitch), 0,
                            bytes(pitch - vocab), static_cast<size_t>(rows), on.stream),
          "clear what pads scores");
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const Context& on = context(losses);
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0), pitch = padded(vocab);
  const bool is_one_type = args.hidden.dtype() == args.weight.dtype();
  const DType dtype = is_one_type ? args.hidden.dtype() : DType::F32;
  const Head head(on, args, dtype);
  for_sum_type(dtype, "cross_entropy", [&](auto tag) {
    using S = decltype(tag);
    const DType type = head.is_half ? DType::BF16 : dtype_of<S>;
    const int64_t most = slice_rows(R, pitch);
    const Tensor scores = Tensor::empty({most, pitch}, type, on.device);
    clear_padding(on, scores, vocab);
    const Tensor d_scores = !d_hidden       ? Tensor()
                            : type == dtype ? scores
                                            : Tensor::empty({most, pitch}, dtype, on.device);
    for (int64_t begin = 0; begin < R; begin += most) {
      const int64_t end = std::min(R, begin + most);
      const ScoreSlice slice = {on, head.hidden, head.weight, begin, end};
      head.compute_scores(slice, scores);
      losses_of(on, ScoreRows<S>{.rows = end - begin,
                                 .vocab = vocab,
                                 .pitch = pitch,
                                 .scores = scores,
                                 .targets = args.targets.data<int32_t>() + begin,
                                 .scale = static_cast<S>(args.scale),
                                 .losses = Numbers(losses.slice(begin, end)),
                                 .d_scores = d_scores});
      if (d_hidden) slice.add_gradients(d_scores, d_hidden, d_weight);
    }
  });
}

}  // namespace regla::cuda
