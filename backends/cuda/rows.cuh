#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// Loops over rows that need a sum or a maximum of each: a team of threads shares a row. A team is a
// power of two of neighbouring lanes of a warp or, for long rows, the whole block.
namespace regla::cuda {

/// The threads of one row. All threads of a block call `sum`, `max` and `min` together; threads
/// whose row does not exist have `is_active` false and no elements.
struct Team {
  int lanes, lane;
  bool is_active;

  template <class S>
  __device__ S sum(S x) const {
    return reduce(x, [](S a, S b) { return a + b; });
  }
  template <class S>
  __device__ S max(S x) const {
    return reduce(x, [](S a, S b) { return a > b ? a : b; });
  }
  template <class S>
  __device__ S min(S x) const {
    return reduce(x, [](S a, S b) { return a < b ? a : b; });
  }
  /// What all x join to by f, which does not mind their order.
  template <class S, class F>
  __device__ S joined(S x, F f) const {
    return reduce(x, f);
  }
  /// The one thread that writes what a row has one of.
  __device__ bool leads() const { return is_active && lane == 0; }

  /// Calls f(j) for this thread's j: every W-th of [0, count) in turns.
  template <int W, class F>
  __device__ void each(int64_t count, F f) const {
    if (!is_active) return;
    for (int64_t j = lane * W; j < count; j += lanes * W) f(j);
  }

  /// Several sums at once.
  template <class S, int K>
  __device__ void sum(S (&x)[K]) const {
    const auto add = [](S a, S b) { return a + b; };
    each_offset([&](int offset) {
#pragma unroll
      for (int k = 0; k < K; ++k) x[k] += __shfl_xor_sync(0xffffffffu, x[k], offset);
    });
    if (lanes <= 32) return;
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] = of_block(x[k], add);
  }

 private:
  /// Calls f with the distances of lanes whose numbers come together, within a warp.
  template <class F>
  __device__ void each_offset(F f) const {
    if (lanes >= 32) {
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) f(offset);
    } else {
      for (int offset = lanes / 2; offset > 0; offset /= 2) f(offset);
    }
  }

  template <class S, class F>
  __device__ S reduce(S x, F f) const {
    each_offset([&](int offset) { x = f(x, __shfl_xor_sync(0xffffffffu, x, offset)); });
    return lanes <= 32 ? x : of_block(x, f);
  }
  /// The same from what each warp has.
  template <class S, class F>
  __device__ S of_block(S x, F f) const {
    __shared__ S of_warps[32];
    const int warps = lanes / 32;
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = of_warps[threadIdx.x % warps];
    for (int offset = warps / 2; offset > 0; offset /= 2) {
      x = f(x, __shfl_xor_sync(0xffffffffu, x, offset));
    }
    __syncthreads();  // before another sum writes here
    return x;
  }
};

/// A row that is read several times: up to P loads of W elements per thread stay in registers, what
/// is beyond them is loaded again.
template <class S, int W, int P, class View = Elements<S>>
class HeldRow {
 public:
  /// The `size` elements of x from `start`.
  __device__ HeldRow(const Team& team, const View& x, int64_t start, int64_t size)
      : team_(team), x_(x), start_(start), count_(team.is_active ? size : 0) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (place(p) < count_) x_.template fetch<W>(start_ + place(p), held_[p]);
    }
  }

  /// Calls f(j, elements [j, j + W)) for this thread's part of the row.
  template <class F>
  __device__ void each(F f) const {
    walk(f);
  }

  /// The same over this row and others of its size: `with(others..., f)` calls f(j, these,
  /// those...).
  template <class Row, class F>
  __device__ void with(const Row& b, F f) const {
    walk(f, b);
  }
  template <class Row, class F>
  __device__ void with(const Row& b, const Row& c, const Row& d, F f) const {
    walk(f, b, c, d);
  }

 private:
  template <class, int, int, class>
  friend class HeldRow;

  struct Unpacked {
    S v[W];
    __device__ Unpacked(const HeldRow& row, int p) { row.x_.template unpack<W>(row.held_[p], v); }
    __device__ Unpacked(const HeldRow& row, int64_t j) {
      typename View::template Raw<W> raw;
      row.x_.template fetch<W>(row.start_ + j, raw);
      row.x_.template unpack<W>(raw, v);
    }
  };
  /// Of load p, which is held, or of elements from j on.
  template <class Place>
  __device__ Unpacked unpacked(Place at) const {
    return Unpacked(*this, at);
  }

  template <class F, class... Rows>
  __device__ void walk(F f, const Rows&... others) const {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int64_t j = place(p);
      if (j < count_) f(j, unpacked(p).v, others.unpacked(p).v...);
    }
    if constexpr (P > 1) {  // a single load always holds the row
      for (int64_t j = place(P); j < count_; j += team_.lanes * W) {
        f(j, unpacked(j).v, others.unpacked(j).v...);
      }
    }
  }

  __device__ int64_t place(int p) const { return (int64_t{p} * team_.lanes + team_.lane) * W; }

  Team team_;
  View x_;
  int64_t start_, count_;
  typename View::template Raw<W> held_[P];
};

template <int Threads, class F>
__global__ __launch_bounds__(Threads) void each_row(int64_t rows, int lanes, F f) {
  const int64_t teams = Threads / lanes;
  for (int64_t first = blockIdx.x * teams; first < rows; first += gridDim.x * teams) {
    const int64_t row = first + threadIdx.x / lanes;
    f(Team{lanes, static_cast<int>(threadIdx.x) % lanes, row < rows}, row);
  }
}

/// Calls `f(team, row)` for every row, each of `size` elements that are loaded W at once and P
/// times by a thread before a block shares a row instead of a warp.
template <int W, int P = 8, int Threads = kThreads, class F>
void for_each_row(const Context& on, int64_t rows, int64_t size, const F& f) {
  if (rows == 0) return;
  int lanes = 1;
  while (lanes < 32 && lanes * W < size) lanes *= 2;
  if (size > 32 * W * P) lanes = Threads;
  const int64_t teams = Threads / lanes, most = std::numeric_limits<int32_t>::max();
  const auto blocks = static_cast<unsigned>(std::min((rows + teams - 1) / teams, most));
  each_row<Threads><<<blocks, Threads, 0, on.stream>>>(rows, lanes, f);
  require_launched("a kernel of rows");
}

/// The same for rows that are held (HeldRow), by the function that `make(loads, P)` gives: how x is
/// loaded and, as a type, P loads per thread. With one a row is short enough to lie in a single
/// load of a warp or of a part of it.
template <class S, class Make, class... Tensors>
void for_each_held_row(const Context& on, int64_t rows, int64_t size, Make&& make, const Tensor& x,
                       const Tensors&... beside) {
  for_loads<S>(
      size,
      [&](auto loads) {
        constexpr int W = decltype(loads)::kWidth, kMost = W == 1 ? 8 : 32 / W;
        const auto launch = [&](auto held) {
          for_each_row<W, decltype(held)::value>(on, rows, size, make(loads, held));
        };
        if (size <= 32 * W) return launch(std::integral_constant<int, 1>{});
        launch(std::integral_constant<int, kMost>{});
      },
      x, beside...);
}

}  // namespace regla::cuda
