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

/// How a row is held: by teams of `Lanes` threads, each with P units of two packs of W features,
/// which are pairs that turn or neighbours that do not. Rows of K = 2 P W Lanes features, all in
/// pairs (i, i + K / 2), are `filled`, which is known when the kernel is compiled; with 0 lanes
/// rows may have any size, of which any part turns.
template <class View_, int W_, int P_, int Lanes_>
struct HeldAs {
  using View = View_;
  using S = typename View::S;
  static constexpr int W = W_, P = P_, kLanes = Lanes_, kFilled = 2 * P * W * kLanes;
};

/// Which features of a row a thread has.
template <class Held>
struct Units {
  static constexpr bool kIsFilled = Held::kFilled > 0;
  static constexpr int W = Held::W;

  int lanes, lane, half, K;
  bool is_active;

  __device__ Units(const Team& team, const Turn& turn)
      : lanes(kIsFilled ? Held::kLanes : team.lanes),
        lane(team.lane),
        half(turn.half),
        K(kIsFilled ? Held::kFilled : turn.K),
        is_active(team.is_active) {}

  __device__ int unit(int p) const { return (p * lanes + lane) * W; }
  __device__ int low(int p) const { return kIsFilled || unit(p) < half ? unit(p) : 2 * unit(p); }
  __device__ int high(int p) const {
    if (kIsFilled) return unit(p) + K / 2;
    return unit(p) < half ? unit(p) + half : 2 * unit(p) + W;
  }
  __device__ bool has_low(int p) const { return is_active && (kIsFilled || 2 * unit(p) < K); }
  __device__ bool has_high(int p) const { return has_low(p) && (kIsFilled || high(p) < K); }
  __device__ bool turns(int p) const {
    return has_low(p) && (kIsFilled ? half > 0 : low(p) < half);
  }
};

/// A thread's part of a row, in registers.
template <class Held>
class PairedRow {
 public:
  using S = typename Held::S;
  using View = typename Held::View;
  static constexpr int W = Held::W, P = Held::P;

  /// As it lies in memory.
  struct Fetched {
    typename View::template Raw<W> low[P], high[P];

    __device__ Fetched() {}
    __device__ Fetched(const Team& team, const View& x, int row, const Turn& turn) {
      const Units<Held> units(team, turn);
      const int64_t first = turn.place(row);
#pragma unroll
      for (int p = 0; p < P; ++p) {
        if (units.has_low(p)) x.template fetch<W>(first + units.low(p), low[p]);
        if (units.has_high(p)) x.template fetch<W>(first + units.high(p), high[p]);
      }
    }
  };

  __device__ PairedRow(const Team& team, const View& x, const Fetched& raw, const Turn& turn)
      : units_(team, turn) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      x.template unpack<W>(raw.low[p], low_[p]);
      x.template unpack<W>(raw.high[p], high_[p]);
    }
  }

  /// Turns the row of a token.
  __device__ void turn(int token, const Turns<S>& turns) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (units_.turns(p)) turns.turn(token, units_.low(p), low_[p], high_[p]);
    }
  }

  /// Calls f(j, features [j, j + W)) for this thread's part.
  template <class F>
  __device__ void each(F f) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (units_.has_low(p)) f(units_.low(p), low_[p]);
      if (units_.has_high(p)) f(units_.high(p), high_[p]);
    }
  }
  /// The same with those of another row: f(j, these, those).
  template <class F>
  __device__ void with(PairedRow& other, F f) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (units_.has_low(p)) f(units_.low(p), low_[p], other.low_[p]);
      if (units_.has_high(p)) f(units_.high(p), high_[p], other.high_[p]);
    }
  }

  /// The first of this thread's features that is x, or `none`.
  __device__ int first_of(S x, int none) {
    int first = none;
    if constexpr (Units<Held>::kIsFilled) {  // the last first: each that is x replaces those behind
#pragma unroll
      for (int i = 2 * P * W - 1; i >= 0; --i) {
        const int p = i / W % P;
        const S feature = i < P * W ? low_[p][i % W] : high_[p][i % W];
        const int place = i < P * W ? units_.low(p) : units_.high(p);
        if (units_.is_active && feature == x) first = place + i % W;
      }
    } else {
      each([&](int j, const S(&v)[W]) {
        for (int w = 0; w < W; ++w) first = min(first, v[w] == x ? j + w : none);
      });
    }
    return first;
  }

 private:
  Units<Held> units_;
  S low_[P][W], high_[P][W];
};

constexpr int kBlocksOfTurns = 4;  // of a multiprocessor

/// Rows are on their way while their turns are brought in.
/// `backwards`: blocks begin with the last rows, which the kernel before left in the cache.
template <class Held, class F>
__global__ __launch_bounds__(kThreads, kBlocksOfTurns) void each_turned_row(Turn turn,
                                                                            int team_lanes,
                                                                            bool backwards, F f) {
  extern __shared__ __align__(32) unsigned char shared[];
  const int lanes = Held::kLanes > 0 ? Held::kLanes : team_lanes;
  const int size = kThreads / lanes, groups = (turn.rows + size - 1) / size;
  Turns<typename Held::S> turns(turn, size, shared);
  for (int group = static_cast<int>(blockIdx.x); group < groups;
       group += static_cast<int>(gridDim.x)) {
    const int first = (backwards ? groups - 1 - group : group) * size;
    const int row = first + static_cast<int>(threadIdx.x) / lanes;
    const Team team = {lanes, static_cast<int>(threadIdx.x) % lanes, row < turn.rows};
    const auto fetched = f.fetch(team, row, turn);
    turns.move_to(first, min(first + size, turn.rows));
    f(team, row, row / turn.H, turns, fetched);
  }
}

/// Calls `f(team, row, token, turns, f.fetch(team, row, turn))` for every row, of which a thread
/// holds what F::Held says.
template <class F>
void for_each_turned_row(const Turn& turn, const F& f, bool backwards = false) {
  using Held = typename F::Held;
  using S = typename Held::S;
  if (turn.rows == 0 || turn.K == 0) return;
  constexpr size_t kMostShared = 48 << 10;
  constexpr int kFeatures = 2 * Held::P * Held::W;  // of a thread
  int lanes = 1;
  while (lanes < kThreads && lanes * kFeatures < turn.K) lanes *= 2;
  if (lanes > 32) lanes = kThreads;
  const int teams = kThreads / lanes;
  const size_t shared = Turns<S>::shared_bytes(turn, teams);
  check(shared <= kMostShared && turn.K <= lanes * kFeatures, "[cuda] heads of ", turn.K,
        " features are too large");
  const Context& on = context(turn.device);
  const int groups = (turn.rows + teams - 1) / teams;
  const int blocks = std::min(groups, on.multiprocessors * kBlocksOfTurns);
  each_turned_row<Held>
      <<<static_cast<unsigned>(blocks), kThreads, shared, on.stream>>>(turn, lanes, backwards, f);
  require_launched("a kernel of rows that turn");
}

/// Calls `f` with how rows of K features are held that 16 features of a thread fill; false where
/// they do not.
template <class View, int W, class F>
bool for_filled_rows(int K, F&& f) {
  constexpr int P = 8 / W;
  switch (K) {
    case 32:
      f(HeldAs<View, W, P, 2>{});
      return true;
    case 64:
      f(HeldAs<View, W, P, 4>{});
      return true;
    case 128:
      f(HeldAs<View, W, P, 8>{});
      return true;
    default:
      return false;
  }
}

/// Calls `f` with how rows of x are held, beside which other tensors are read (of its type) or
/// written; S is the type that they are computed in. W features are loaded at once where all
/// tensors allow it.
template <class S, class F, class... Tensors>
void for_paired_rows(const Turn& turn, F&& f, const Tensor& x, const Tensors&... beside) {
  if constexpr (std::is_same_v<S, float>) {
    const bool is_narrow = x.dtype() == DType::BF16;
    if ((turn.half == 0 || 2 * turn.half == turn.K) && are_aligned<kWidest>(x, beside...) &&
        (is_narrow ? for_filled_rows<Typed<__nv_bfloat16>, kWidest>(turn.K, f)
                   : for_filled_rows<Typed<float>, kWide>(turn.K, f))) {
      return;
    }
  }
  for_width<S>(
      turn.least_run(),
      [&](auto width) {
        // Two units a thread halve what is done once per row; long rows take more.
        constexpr int W = decltype(width)::value, kMost = 4 * W * kThreads;  // features of a block
        if (turn.K <= kMost) return f(HeldAs<Elements<S>, W, 2, 0>{});
        f(HeldAs<Elements<S>, W, 8, 0>{});
      },
      x, beside...);
}

}  // namespace regla::cuda
