#include <algorithm>

#include "backends/copies.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/product.h"
#include "backends/cuda/rows.cuh"
#include "backends/cuda/tensor_cores.cuh"

// Rows by slices: the scores of a slice, the losses and the gradients of the scores by one kernel,
// and two products of those. The gradient of the weights adds up over the slices in the sum type.
// Scores are of that type, too: one of 16 in BF16 would be off by 0.06, and a probability by as
// much. Their gradients, operands of products, are narrow; they take the scores' place where they
// are as wide.
namespace regla::cuda {
namespace {

/// Rows of a slice, of `rows` in equal parts: the more, the less often the gradient of the weights,
/// which each slice adds to, is read and written; at most 1 GB of scores.
int64_t slice_rows(int64_t rows, int64_t row_bytes) {
  constexpr int64_t kMostBytes = int64_t{1} << 30, kTile = 128;
  const int64_t most = std::max(kMostBytes / row_bytes, kTile), slices = (rows + most - 1) / most;
  return std::min(rows, ((rows + slices - 1) / slices + kTile - 1) / kTile * kTile);
}

/// Elements from row to row: cuBLASLt is fastest where every row begins at 16 bytes.
int64_t padded(int64_t vocab) { return (vocab + 7) / 8 * 8; }

// loss = -log softmax(row)[target];  d_score = scale * (softmax(row) - one_hot(target))
template <class S>
struct ScoreRows {
  int64_t rows, vocab, pitch;
  Tensor scores;  // [rows, pitch]; what lies behind the vocabulary is nobody's
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
template <int Threads>
struct HeldScores {
  static constexpr int kSize = 4, kStep = Threads * kSize, kPlaces = 14;

  int64_t rows;
  int vocab, pitch;
  const float* scores;
  const int32_t* targets;
  float scale;
  Numbers losses;
  Result<float> d_scores;

  using Place = Pack<float, kSize>;

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

  /// -infinity behind the vocabulary.
  __device__ void read(int p, float (&v)[kSize]) const {
    Typed<float>::unpack<kSize>(place(p), v);
    if (index(p) + kSize <= vocab) return;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      if (index(p) + i >= vocab) v[i] = -std::numeric_limits<float>::infinity();
    }
  }

  /// e^(x - largest), where `shift` is largest * log2(e).
  __device__ static float exponential(float x, float shift) {
    return fast_exp2(fmaf(x, kLog2E, -shift));
  }
  /// Where all is -infinity so far, any finite shift gives 0.
  __device__ static float shift_of(float largest) {
    return largest == -std::numeric_limits<float>::infinity() ? 0 : largest * kLog2E;
  }

  struct Sum {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;  // of e^(x - largest)

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
      const float score = place(target / kStep).v[target % kSize];
      losses.set(row, log(static_cast<double>(sum.sum)) + sum.largest - score);
    }
  }

  __device__ void put_gradients(int64_t row, int32_t target, const Sum& sum, int p) const {
    if (index(p) >= pitch) return;
    float v[kSize];
    read(p, v);
    const float shift = shift_of(sum.largest), factor = scale / sum.sum;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      v[i] = target < 0 ? 0 : factor * exponential(v[i], shift);
      if (index(p) + i == target) v[i] -= scale;
    }
    d_scores.set(row * pitch + index(p), v);
  }
};

template <int Threads>
__global__ __launch_bounds__(Threads, 1024 / Threads) void held_rows(HeldScores<Threads> a) {
  using Row = HeldScores<Threads>;
  __shared__ float2 warps[2][32];
  int64_t row = blockIdx.x;
  for (int p = 0; p < Row::kPlaces; ++p) a.bring(row, p);
  for (int turn = 0; row < a.rows; row += gridDim.x, turn ^= 1) {
    const int32_t target = a.targets[row];
    const auto sum = a.sum_of_row(warps[turn]);
    a.put_loss(row, target, sum);
#pragma unroll
    for (int p = 0; p < Row::kPlaces; ++p) {
      if (a.d_scores) a.put_gradients(row, target, sum, p);
      a.bring(row + gridDim.x, p);
    }
  }
}

/// False where a row does not fit.
template <int Threads>
bool fit(const Context& on, const ScoreRows<float>& a) {
  using Row = HeldScores<Threads>;
  const int64_t places = (a.pitch + Row::kStep - 1) / Row::kStep, bytes = places * Threads * 16;
  int most = 0;
  require(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, on.device.index),
          "ask for the size of shared memory");
  if (places > Row::kPlaces || bytes + 1024 > most) return false;
  require(cudaFuncSetAttribute(held_rows<Threads>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "ask for shared memory");
  const Row rows = {.rows = a.rows,
                    .vocab = static_cast<int>(a.vocab),
                    .pitch = static_cast<int>(a.pitch),
                    .scores = a.scores.data<float>(),
                    .targets = a.targets,
                    .scale = a.scale,
                    .losses = a.losses,
                    .d_scores = Result<float>(a.d_scores)};
  const int64_t blocks = std::min<int64_t>(a.rows, on.multiprocessors * (1024 / Threads));
  held_rows<<<static_cast<unsigned>(blocks), Threads, static_cast<size_t>(bytes), on.stream>>>(
      rows);
  require_launched("cross_entropy");
  return true;
}

void losses_of(const Context& on, const ScoreRows<float>& a) {
  if (!fit<512>(on, a) && !fit<1024>(on, a)) any_rows(on, a);
}
void losses_of(const Context& on, const ScoreRows<double>& a) { any_rows(on, a); }

/// Rows [begin, begin + rows) of hidden [R, D], weight [vocab, D] of the same type.
struct Slice {
  const Context& on;
  Matrices hidden, weight, scores, d_scores;

  void compute_scores() const {
    multiply(on, {.a = hidden, .b = weight, .c = scores, .transpose_b = true});
  }

  void add_gradients(const Matrices& d_hidden, const Matrices& d_weight, bool is_first) const {
    multiply(on, {.a = d_scores, .b = weight, .c = d_hidden});
    multiply(
        on,
        {.a = d_scores, .b = hidden, .c = d_weight, .transpose_a = true, .accumulate = !is_first});
  }
};

/// The first `rows` rows of a buffer [most, pitch], without what pads them.
Matrices part_of(const Tensor& buffer, int64_t rows, int64_t columns) {
  Matrices part = Matrices::of(buffer);
  part.rows = rows;
  part.columns = columns;
  return part;
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden, Tensor d_weight) {
  const Context& on = context(losses);
  const int64_t R = args.hidden.dim(0), vocab = args.weight.dim(0);
  const bool is_one_type = args.hidden.dtype() == args.weight.dtype();
  const DType dtype = is_one_type ? args.hidden.dtype() : DType::F32;
  const Tensor hidden = converted(args.hidden, dtype), weight = converted(args.weight, dtype);
  for_sum_type(dtype, "cross_entropy", [&](auto tag) {
    using S = decltype(tag);
    const int64_t pitch = padded(vocab);
    const int64_t most = slice_rows(R, pitch * static_cast<int64_t>(sizeof(S)));
    const Tensor scores = Tensor::empty({most, pitch}, dtype_of<S>, on.device);
    Tensor d_scores;
    if (d_hidden) {
      d_scores = dtype == dtype_of<S> ? scores : Tensor::empty({most, pitch}, dtype, on.device);
    }
    for (int64_t begin = 0; begin < R; begin += most) {
      const int64_t rows = std::min(most, R - begin), end = begin + rows;
      const Slice slice = {.on = on,
                           .hidden = Matrices::of(hidden.slice(begin, end)),
                           .weight = Matrices::of(weight),
                           .scores = part_of(scores, rows, vocab),
                           .d_scores = part_of(d_scores ? d_scores : scores, rows, vocab)};
      slice.compute_scores();
      losses_of(on, ScoreRows<S>{.rows = rows,
                                 .vocab = vocab,
                                 .pitch = pitch,
                                 .scores = scores,
                                 .targets = args.targets.data<int32_t>() + begin,
                                 .scale = static_cast<S>(args.scale),
                                 .losses = Numbers(losses.slice(begin, end)),
                                 .d_scores = d_scores});
      if (d_hidden) {
        slice.add_gradients(Matrices::of(d_hidden.slice(begin, end)), Matrices::of(d_weight),
                            begin == 0);
      }
    }
  });
}

}  // namespace regla::cuda
