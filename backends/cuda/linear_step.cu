#include <algorithm>

#include "backends/cuda/chained.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/linear_step.cuh"
#include "backends/step.h"

// Products of one or two rows with matrices, at the speed of memory: a warp has rows of a weight,
// and x in its registers, each lane what it multiplies with what it loads. The norm of a short row
// is found by each block once: by each warp it would be as much work as the products. Weights are
// asked for before the kernels ahead have ended (chained.cuh). Bytes: the weights once.
namespace regla::cuda {
namespace {

constexpr int kVectorThreads = 256, kVectorWarps = kVectorThreads / 32;
constexpr int kSharers = 4;          // warps of a long row
constexpr int kMostHeld = 1024;      // elements of a row of x that a warp holds
constexpr int kFetchedBytes = 8192;  // of a warp's rows, ahead

template <class W>
__device__ void unpack_piece(const uint4& raw, float (&v)[kPieceOf<W>]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<W, float>) {
      v[i] = __uint_as_float(words[i]);
    } else {
      v[2 * i] = __uint_as_float(words[i] << 16);
      v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}

/// Asks for part `share` of `shares` of a row of weights, by the lanes of a warp.
__device__ inline void fetch_row(const char* row, int row_bytes, int share, int shares) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int at = (share * 32 + lane) * 128; at < row_bytes; at += shares * 32 * 128) {
    fetch_ahead(row + at);
  }
}

/// sum += the products of a piece of a weight with those of R rows of x.
template <class W, int R, int C>
__device__ void add_products(const uint4& raw, const float (&x)[R][C][kPieceOf<W>], int c,
                             float (&sum)[R]) {
  float w[kPieceOf<W>];
  unpack_piece<W>(raw, w);
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int i = 0; i < kPieceOf<W>; ++i) sum[r] = fmaf(w[i], x[r][c][i], sum[r]);
  }
}

template <int R>
__device__ void add_lanes(float (&sum)[R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], offset);
    }
  }
}

/// Short rows of x' of a block, whose threads make four neighbours each.
template <class X, int R>
class BlockRows {
 public:
  __device__ explicit BlockRows(const StepProduct& step) : step_(step) {
    const int k = first();
    if (step.gain != nullptr) affine_.load(step, k);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      Pack<X, kEach> raw = {};
      const X* from = static_cast<const X*>(step.x) + int64_t{r} * step.D;
      if (k < step.D) raw = *reinterpret_cast<const Pack<X, kEach>*>(from + k);
#pragma unroll
      for (int i = 0; i < kEach; ++i) v_[r][i] = static_cast<float>(raw.v[i]);
    }
  }

  /// Brings x' to shared memory, where number k lies at place<P>(k) of its row. All threads.
  template <int P>
  __device__ void make(float (&x)[R][kMostHeld]) {
    const int k = first();
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (step_.gain != nullptr) normalise(r);
      *reinterpret_cast<float4*>(x[r] + place<P>(k)) =
          make_float4(v_[r][0], v_[r][1], v_[r][2], v_[r][3]);
    }
    __syncthreads();
  }

  /// Lanes load P neighbours each, by fours: those of neighbouring lanes are side by side.
  template <int P>
  __device__ static int place(int k) {
    return k % P / kEach * (kMostHeld * kEach / P) + k / P * kEach + k % kEach;
  }

 private:
  static constexpr int kEach = kMostHeld / kVectorThreads;

  __device__ static int first() { return static_cast<int>(threadIdx.x) * kEach; }

  __device__ void normalise(int r) {
    const float share = 1 / static_cast<float>(step_.D);
    const bool exists = first() < step_.D;
    const auto mean_of = [&](auto f) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kEach; ++i) sum += f(v_[r][i]);
      return over_block(exists ? sum : 0) * share;
    };
    const float mean = mean_of([](float x) { return x; });
    const float variance = mean_of([&](float x) { return (x - mean) * (x - mean); });
    const float inverse = rsqrtf(variance + step_.epsilon);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      v_[r][i] = normed(step_, v_[r][i], mean, inverse, affine_.gain[i], affine_.bias[i]);
    }
  }
  /// The sum over all threads, in the order of the warps.
  __device__ float over_block(float x) {
    __shared__ float of_warps[2][kVectorWarps];
    float* const sums = of_warps[turn_++ % 2];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int w = 0; w < kVectorWarps; ++w) x += sums[w];
    return x;
  }

  const StepProduct& step_;
  Affine<kEach> affine_;
  float v_[R][kEach];
  int turn_ = 0;  // two sums take turns: one may still be read while the next is written
};

/// Rows of at most C pieces a lane: x' is held by every warp, M rows of weights are under way.
template <class X, class W, int R, int C, int M>
__global__ __launch_bounds__(kVectorThreads, 2) void multiply_short(StepProduct step,
                                                                    int rows_each) {
  constexpr int P = kPieceOf<W>;
  static_assert(M * R <= 32);  // a lane for each sum
  __shared__ __align__(16) float rows[R][kMostHeld];
  let_next_begin();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(blockIdx.x * kVectorWarps + threadIdx.x / 32);
  const int begin = warp * rows_each, end = min(begin + rows_each, step.N);
  const int row_bytes = step.D * static_cast<int>(sizeof(W));
  const int ahead = min(end, begin + max(1, kFetchedBytes / row_bytes));
  for (int n = begin; n < ahead; ++n) fetch_row(step.row(n, row_bytes), row_bytes, 0, 1);
  await_before();
  BlockRows<X, R> of_block(step);
  uint4 raw[M][C];
  const auto load = [&](int n0) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const bool exists = n0 + m < end;
      const char* row = step.row(exists ? n0 + m : 0, row_bytes);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int at = (c * 32 + lane) * 16;
        raw[m][c] = streamed_piece(row + at, exists && at < row_bytes);
      }
    }
  };
  load(begin);
  of_block.template make<P>(rows);
  if (begin >= end) return;
  float x[R][C][P];
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
#pragma unroll
      for (int i = 0; i < P; i += 4) {
        const int at = BlockRows<X, R>::template place<P>((c * 32 + lane) * P + i);
        *reinterpret_cast<float4*>(x[r][c] + i) = *reinterpret_cast<const float4*>(rows[r] + at);
      }
    }
  }
  const int own_m = lane / R, own_r = lane % R;
  for (int n0 = begin; n0 < end; n0 += M) {
    const bool owns = own_m < M && n0 + own_m < end;
    StepProduct::Addends addends = {};
    if (owns) addends = step.addends(own_r, n0 + own_m);
    float sum[M][R] = {}, own = 0;
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int c = 0; c < C; ++c) add_products<W>(raw[m][c], x, c, sum[m]);
    }
    if (n0 + M < end) load(n0 + M);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      add_lanes(sum[m]);
#pragma unroll
      for (int r = 0; r < R; ++r) own = lane == m * R + r ? sum[m][r] : own;
    }
    if (owns) step.put(own, addends);
  }
}

/// Longer rows: `kSharers` warps share one, and their sums are added in order.
template <class X, class W, int R>
__global__ __launch_bounds__(kVectorThreads, R == 1 ? 3 : 2) void multiply_long(StepProduct step,
                                                                                int rows_each) {
  constexpr int P = kPieceOf<W>, C = 4, kTeams = kVectorWarps / kSharers;
  __shared__ float sums[2][kVectorWarps][R];
  let_next_begin();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int team = warp / kSharers, share = warp % kSharers;
  const auto first_of = [&](int t) {
    return (static_cast<int>(blockIdx.x) * kTeams + t) * rows_each;
  };
  const int begin = first_of(team), row_bytes = step.D * static_cast<int>(sizeof(W));
  const int pieces = (step.D + 32 * P - 1) / (32 * P);
  if (begin < step.N) fetch_row(step.row(begin, row_bytes), row_bytes, share, kSharers);
  await_before();
  StepRow<X, P> rows[2] = {{step, 0}, {step, R - 1}};
#pragma unroll
  for (int r = 0; r < R; ++r) rows[r].measure();
  for (int i = 0; i < rows_each; ++i) {
    const char* row = step.row(min(begin + i, step.N - 1), row_bytes);
    float sum[R] = {};
    for (int c0 = share; c0 < pieces; c0 += C * kSharers) {
      uint4 raw[C];
      float x[R][C][P];
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int at = ((c0 + c * kSharers) * 32 + lane) * 16;
        raw[c] = streamed_piece(row + at, at < row_bytes);
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int c = 0; c < C; ++c) rows[r].load(c0 + c * kSharers, x[r][c]);
      }
#pragma unroll
      for (int c = 0; c < C; ++c) add_products<W>(raw[c], x, c, sum);
    }
    add_lanes(sum);
    // Those of the row before are read by now: the next go there.
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (lane == r) sums[i % 2][warp][r] = sum[r];
    }
    __syncthreads();
    const int t = static_cast<int>(threadIdx.x) / R, r = static_cast<int>(threadIdx.x) % R;
    if (t >= kTeams || first_of(t) + i >= step.N) continue;
    const StepProduct::Addends addends = step.addends(r, first_of(t) + i);
    float all = 0;
#pragma unroll
    for (int s = 0; s < kSharers; ++s) all += sums[i % 2][t * kSharers + s][r];
    step.put(all, addends);
  }
}

template <class X, class W, int R>
void launch_vectors(const Context& on, const StepProduct& step) {
  // Blocks of `takers` warps or teams, each with as many rows as keep `blocks` of a multiprocessor
  // busy.
  const auto launch = [&](auto* kernel, int blocks, int takers, int multiple) {
    const int64_t most = int64_t{on.multiprocessors} * blocks * takers;
    int64_t each = (step.N + most - 1) / most;
    each = (each + multiple - 1) / multiple * multiple;
    const int64_t count = (step.N + each - 1) / each;
    launch_chained(on, kernel, dim3(static_cast<unsigned>((count + takers - 1) / takers)),
                   kVectorThreads, 0, step, static_cast<int>(each));
  };
  constexpr bool kIsWide = std::is_same_v<W, float>;
  constexpr int kMost = kMostHeld / (32 * kPieceOf<W>);  // pieces of a short row
  if (step.D > kMostHeld) {
    return launch(multiply_long<X, W, R>, R == 1 ? 3 : 2, kVectorWarps / kSharers, 1);
  }
  if constexpr (!kIsWide) {
    if (step.N > on.multiprocessors * 2 * kVectorWarps) {
      return launch(multiply_short<X, W, R, kMost, 2>, 2, kVectorWarps, 2);
    }
  }
  launch(multiply_short<X, W, R, kMost, 1>, 2, kVectorWarps, 1);
}

template <class X, class W>
void launch_rows(const Context& on, const StepProduct& step) {
  step.R == 1 ? launch_vectors<X, W, 1>(on, step) : launch_vectors<X, W, 2>(on, step);
}

/// Whether the faster kernels can read all of this.
bool are_pieces(const LinearStepArgs& args) {
  const Tensor& x = args.x;
  const auto is_narrow = [](const Tensor& t) { return t.dtype() == DType::BF16; };
  if (x.dtype() == DType::F64 || x.dim(0) == 0 || args.parts.size() > kMostStepParts) return false;
  if (x.dim(1) == 0 || x.dim(1) % kWidest != 0 || !are_aligned<kWide>(x, args.gain, args.bias) ||
      !are_aligned<kWidest>(x))
    return false;
  return std::all_of(args.parts.begin(), args.parts.end(), [&](const LinearStepArgs::Part& part) {
    return is_narrow(part.weight) == is_narrow(args.parts[0].weight) &&
           are_aligned<kWidest>(part.weight) && (is_narrow(part.weight) || !is_narrow(x));
  });
}

StepProduct product_of(const LinearStepArgs& args) {
  const auto floats = [](const Tensor& x) { return x ? x.data<float>() : nullptr; };
  StepProduct step = {.R = static_cast<int>(args.x.dim(0)),
                      .D = static_cast<int>(args.x.dim(1)),
                      .x = args.x.raw(),
                      .gain = floats(args.gain),
                      .norm_bias = floats(args.bias),
                      .residual = floats(args.residual),
                      .epsilon = static_cast<float>(args.epsilon),
                      .narrows = args.type == DType::BF16,
                      .activation = args.activation};
  for (const LinearStepArgs::Part& part : args.parts) {
    step.parts[step.count++] = {part.weight.raw(), Elements<float>(part.bias),
                                Result<float>(part.y), step.N};
    step.N += static_cast<int>(part.weight.dim(0));
  }
  return step;
}

}  // namespace

void linear_step(const LinearStepArgs& args) {
  if (!are_pieces(args)) return linear_step_by_parts(args);
  const Context& on = context(args.x);
  const StepProduct step = product_of(args);
  const bool is_wide = args.parts[0].weight.dtype() == DType::F32;
  if (step.R <= 2) {
    if (is_wide) return launch_rows<float, float>(on, step);
    if (args.x.dtype() == DType::F32) return launch_rows<float, __nv_bfloat16>(on, step);
    return launch_rows<__nv_bfloat16, __nv_bfloat16>(on, step);
  }
  // More rows are not worth a norm of them all in each block.
  const LinearStepArgs plain = normed(args);
  if (!multiplied_by_tiles(on, plain, product_of(plain))) linear_step_by_parts(plain);
}

}  // namespace regla::cuda
