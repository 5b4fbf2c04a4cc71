#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "backends/cuda/rows.cuh"
#include "backends/kernels.h"

// Loops over the rows of [B, T, H, K] whose features turn in pairs (Rotation): a team of threads
// shares a row, a thread has both features of its pairs, and the heads of a token share its sines
// and cosines, which a block keeps for the tokens of its rows.
namespace regla::cuda {

/// Sine and cosine of an angle in double: at position 10^5 a float angle has lost its last digits.
/// Less whole turns it fits a float.
static __device__ void sin_cos_of(double angle, float& sine, float& cosine) {
  const double turns = angle * 0.15915494309189533577;
  sincospif(static_cast<float>(2 * (turns - rint(turns))), &sine, &cosine);
}
static __device__ void sin_cos_of(double angle, double& sine, double& cosine) {
  sincos(angle, &sine, &cosine);
}

/// How the features of the rows of a tensor [B, T, H, K] turn.
struct Turn {
  Device device;
  int rows, steps, H, K;
  int half;     // pairs of a row
  double step;  // the logarithm to base 2 of a pair's frequency over the one before
  bool inverse;
  const int32_t* positions;  // [B, T], or null: nothing turns

  Turn(const Tensor& like, const Rotation& rotation, bool is_inverse)
      : device(like.device()),
        rows(static_cast<int>(like.dim(0) * like.dim(1) * like.dim(2))),
        steps(static_cast<int>(like.dim(1))),
        H(static_cast<int>(like.dim(2))),
        K(static_cast<int>(like.dim(3))),
        half(rotation.turns() ? static_cast<int>(rotation.rotary / 2) : 0),
        step(half > 0 ? -std::log2(rotation.base) / half : 0),
        inverse(is_inverse),
        positions(half > 0 ? rotation.positions.data<int32_t>() : nullptr) {
    check(like.dim(0) * like.dim(1) * like.dim(2) <= std::numeric_limits<int>::max(), "[cuda] ",
          like.shape(), " are too many heads of tokens");
  }

  /// So many neighbours belong together in a row that is cut into units: packs of features may be
  /// no longer.
  int least_run() const { return K % 2 == 0 ? std::gcd(K / 2, half) : 1; }

  /// Where a row's features begin.
  __device__ int64_t place(int row) const { return int64_t{row} * K; }

  /// What pair i turns by from one position to the next.
  __device__ double frequency(int i) const { return exp2(i * step); }
};

/// A turn, with the sines and cosines of the tokens of a block's rows in shared memory.
template <class S>
class Turns : public Turn {
 public:
  /// Of a block of that many rows, with `shared_bytes` for it. All threads together.
  __device__ Turns(const Turn& turn, int rows, void* shared)
      : Turn(turn),
        size_(tokens_of(turn, rows) * turn.half),
        frequencies_(static_cast<double*>(shared)),
        cosines_(reinterpret_cast<S*>(frequencies_ + half)) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
      frequencies_[i] = frequency(i);
    }
  }

  static size_t shared_bytes(const Turn& turn, int rows) {
    const auto pairs = static_cast<size_t>(tokens_of(turn, rows) * turn.half);
    return static_cast<size_t>(turn.half) * sizeof(double) + pairs * 2 * sizeof(S);
  }

  /// Brings in the tokens of rows [first, end). All threads of the block together.
  __device__ void move_to(int first, int end) {
    if (half == 0) return;
    __syncthreads();  // frequencies are written; rows before these may still be read
    first_token_ = first / H;
    const int count = ((end - 1) / H + 1 - first_token_) * half;
#pragma unroll 1
    for (int n = static_cast<int>(threadIdx.x); n < count; n += kThreads) {
      S sine, cosine;
      sin_cos_of(frequencies_[n % half] * positions[first_token_ + n / half], sine, cosine);
      cosines_[n] = cosine;
      cosines_[size_ + n] = inverse ? -sine : sine;
    }
    __syncthreads();
  }

  /// Turns features [i, i + W) of a row of the token with those `half` further on.
  template <int W>
  __device__ void turn(int token, int i, S (&low)[W], S (&high)[W]) const {
    struct alignas(W * sizeof(S)) Pack {
      S v[W];
    };
    const int at = (token - first_token_) * half + i;
    const Pack cosine = *reinterpret_cast<const Pack*>(cosines_ + at);
    const Pack sine = *reinterpret_cast<const Pack*>(cosines_ + size_ + at);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const S a = low[w], b = high[w];
      low[w] = a * cosine.v[w] - b * sine.v[w];
      high[w] = b * cosine.v[w] + a * sine.v[w];
    }
  }

 private:
  /// The most tokens that so many neighbouring rows belong to.
  static __host__ __device__ int tokens_of(const Turn& turn, int rows) {
    return (rows + turn.H - 2) / turn.H + 1;
  }

  int size_, first_token_ = 0;
  double* frequencies_;  // [half]
  S* cosines_;           // [tokens, half], and the sines behind them
};

/// A thread's part of a row, in registers: P units, each two packs of W features, which are pairs
/// that turn or neighbours that do not.
template <class S, int W, int P>
class PairedRow {
 public:
  __device__ PairedRow(const Team& team, const Elements<S>& x, int row, const Turn& turn)
      : team_(team), turn_(turn) {
    using Raw = typename Elements<S>::template Raw<W>;
    Raw low[P], high[P];
    const int64_t first = turn.place(row);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (has_low(p)) x.template fetch<W>(first + at_low(p), low[p]);
      if (has_high(p)) x.template fetch<W>(first + at_high(p), high[p]);
    }
#pragma unroll
    for (int p = 0; p < P; ++p) {
      x.template unpack<W>(low[p], low_[p]);
      x.template unpack<W>(high[p], high_[p]);
    }
  }

  /// Turns the row of a token.
  __device__ void turn(int token, const Turns<S>& turns) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (has_low(p) && at_low(p) < turn_.half) turns.turn(token, at_low(p), low_[p], high_[p]);
    }
  }

  /// Calls f(j, features [j, j + W)) for this thread's part.
  template <class F>
  __device__ void each(F f) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (has_low(p)) f(at_low(p), low_[p]);
      if (has_high(p)) f(at_high(p), high_[p]);
    }
  }
  /// The same with those of another row: f(j, these, those).
  template <class F>
  __device__ void with(PairedRow& other, F f) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (has_low(p)) f(at_low(p), low_[p], other.low_[p]);
      if (has_high(p)) f(at_high(p), high_[p], other.high_[p]);
    }
  }

 private:
  __device__ int unit(int p) const { return (p * team_.lanes + team_.lane) * W; }
  __device__ int at_low(int p) const { return unit(p) < turn_.half ? unit(p) : 2 * unit(p); }
  __device__ int at_high(int p) const {
    return unit(p) < turn_.half ? unit(p) + turn_.half : 2 * unit(p) + W;
  }
  __device__ bool has_low(int p) const { return team_.is_active && 2 * unit(p) < turn_.K; }
  __device__ bool has_high(int p) const { return has_low(p) && at_high(p) < turn_.K; }

  const Team& team_;
  const Turn& turn_;
  S low_[P][W], high_[P][W];
};

constexpr int kBlocksOfTurns = 4;  // of a multiprocessor

/// Turns are brought in for `sets` rows of each team at once.
/// `backwards`: blocks begin with the last rows, which the kernel before left in the cache.
template <class S, class F>
__global__ __launch_bounds__(kThreads, kBlocksOfTurns) void each_turned_row(Turn turn, int lanes,
                                                                            int sets,
                                                                            bool backwards, F f) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int teams = kThreads / lanes, size = teams * sets, groups = (turn.rows + size - 1) / size;
  Turns<S> turns(turn, size, shared);
  for (int group = static_cast<int>(blockIdx.x); group < groups;
       group += static_cast<int>(gridDim.x)) {
    const int first = (backwards ? groups - 1 - group : group) * size;
    const int end = min(first + size, turn.rows);
    turns.move_to(first, end);
    for (int row = first + static_cast<int>(threadIdx.x) / lanes; row - first < size;
         row += teams) {
      f(Team{lanes, static_cast<int>(threadIdx.x) % lanes, row < end}, row, row / turn.H, turns);
    }
  }
}

/// Calls `f(team, row, token, turns)` for every row, each of which is a PairedRow<S, W, P>.
template <int W, int P, class S, class F>
void for_each_turned_row(const Turn& turn, const F& f, bool backwards = false) {
  if (turn.rows == 0 || turn.K == 0) return;
  constexpr size_t kMostShared = 48 << 10;
  int lanes = 1;
  while (lanes < kThreads && lanes * P * 2 * W < turn.K) lanes *= 2;
  if (lanes > 32) lanes = kThreads;
  // Short rows come several at once, so that the heads of a token share what is brought in.
  const int teams = kThreads / lanes, sets = lanes < 32 && turn.half > 0 ? 2 : 1;
  const size_t shared = Turns<S>::shared_bytes(turn, teams * sets);
  check(shared <= kMostShared && turn.K <= lanes * P * 2 * W, "[cuda] heads of ", turn.K,
        " features are too large");
  const Context& on = context(turn.device);
  const int size = teams * sets, groups = (turn.rows + size - 1) / size;
  const int blocks = std::min(groups, on.multiprocessors * kBlocksOfTurns);
  each_turned_row<S><<<static_cast<unsigned>(blocks), kThreads, shared, on.stream>>>(
      turn, lanes, sets, backwards, f);
  require_launched("a kernel of rows that turn");
}

/// Calls `f(W, P)`, as types, with how rows of S are held: W features are loaded at once where all
/// of `tensors` allow it, P times two by a thread.
template <class S, class F, class... Tensors>
void for_paired_rows(const Turn& turn, F&& f, const Tensors&... tensors) {
  for_width<S>(
      turn.least_run(),
      [&](auto width) {
        // Two units a thread halve what is done once per row; long rows take more.
        constexpr int kMost = 4 * decltype(width)::value * kThreads;  // features of a block
        if (turn.K <= kMost) return f(width, std::integral_constant<int, 2>{});
        f(width, std::integral_constant<int, 8>{});
      },
      tensors...);
}

}  // namespace regla::cuda
