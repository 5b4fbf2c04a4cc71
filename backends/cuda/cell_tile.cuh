#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "backends/cells.h"
#include "backends/cuda/block.cuh"
#include "backends/cuda/elements.cuh"

// What a cell reads, on its way from tensors to the threads that run it (cells.cuh).
namespace regla::cuda {

constexpr int kMostTile = 8;  // tokens, at most

/// Tokens between states that forward keeps.
constexpr int64_t kSpan = 64;
constexpr int64_t spans_of(int64_t steps) { return (steps + kSpan - 1) / kSpan; }

/// Sequences by heads: row(n, t) is token t of head n in tensors [B, T, H, ...].
struct Heads {
  int64_t steps, H, K, V;
  const int32_t* reset;  // [B, T] or null

  __device__ int64_t row(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }
  __device__ bool resets(int64_t n, int64_t t) const {
    return reset != nullptr && reset[n / H * steps + t] != 0;
  }
};

/// Views of a list of tensors or sinks.
template <class View, size_t N, class List>
std::array<View, N> views(const List& list) {
  return [&]<size_t... i>(std::index_sequence<i...>) {
    return std::array<View, N>{View(list[i])...};
  }
  (std::make_index_sequence<N>{});
}

/// What a cell reads for all heads; d_o, if there is one, behind the values. A is what activations
/// are stored in.
template <class A, class Cell>
struct CellTensors {
  using S = typename Typed<A>::S;
  static constexpr size_t kKeys = Cell::kKeys.all(), kScalars = Cell::kScalars.all();
  static constexpr size_t kValues = Cell::kValues.all() + 1;

  Heads heads;
  std::array<Typed<A>, kKeys> keys;
  std::array<Typed<A>, kValues> values;
  std::array<Typed<S>, kScalars> scalars;

  CellTensors(const CellArgs& args, const RecurrenceResult& result, const Tensor& d_o)
      : heads{result.o.dim(1), result.o.dim(2), result.state.dim(2), result.o.dim(3),
              args.reset ? args.reset.data<int32_t>() : nullptr},
        keys(views<Typed<A>, kKeys>(args.keys)),
        values(views<Typed<A>, kValues>(with(args.values, d_o))),
        scalars(views<Typed<S>, kScalars>(args.scalars)) {}

 private:
  static std::vector<Tensor> with(std::vector<Tensor> list, const Tensor& last) {
    list.push_back(last);
    return list;
  }
};

/// Where gradients go.
template <class S, class Cell>
struct CellResults {
  std::array<Result<S>, Cell::kKeys.all()> keys;
  std::array<Result<S>, Cell::kValues.all()> values;
  std::array<Result<S>, Cell::kScalars.all()> scalars;
  Result<S> d_first;

  explicit CellResults(const CellGradients& to)
      : keys(views<Result<S>, Cell::kKeys.all()>(to.d_keys)),
        values(views<Result<S>, Cell::kValues.all()>(to.d_values)),
        scalars(views<Result<S>, Cell::kScalars.all()>(to.d_scalars)),
        d_first(to.d_state0) {}
};

/// Number `at` of each tensor for `count` tokens, which are `stride` apart, becomes
/// to[token * tokens_apart + tensor * tensors_apart]; all loads are under way at once.
template <class S, class View, size_t N>
__device__ void bring(const std::array<View, N>& from, recurrence::Count kinds, int64_t at,
                      int64_t stride, int count, S* to, int64_t tensors_apart,
                      int64_t tokens_apart) {
  S numbers[N][kMostTile];
#pragma unroll
  for (size_t r = 0; r < N; ++r) {
#pragma unroll
    for (int c = 0; c < kMostTile; ++c) {
      numbers[r][c] = c < count && from[r] ? from[r][at + c * stride] : S(0);
    }
  }
#pragma unroll
  for (size_t r = 0; r < N; ++r) {
    const int number = static_cast<int>(r);
    const bool decays = number >= kinds.plain && number < kinds.plain + kinds.decays;
#pragma unroll
    for (int c = 0; c < kMostTile; ++c) {
      if (c >= count) continue;
      S* place = to + number * tensors_apart + c * tokens_apart;
      *place = decays ? exp(numbers[r][c]) : numbers[r][c];
    }
  }
}

/// Tokens in shared memory: what a cell reads of them for some columns of a head.
template <class A, class Cell>
struct CellTile {
  using Tensors = CellTensors<A, Cell>;
  using S = typename Tensors::S;

  S *keys, *values, *scalars;  // [tile, tensors, K or columns or 1]
  int64_t K, columns;
  unsigned resets = 0;  // a bit for each token

  static __host__ __device__ int64_t size(int64_t K, int64_t columns, int tile) {
    const auto numbers = static_cast<int64_t>(Tensors::kScalars);
    return tile * (static_cast<int64_t>(Tensors::kKeys) * K +
                   static_cast<int64_t>(Tensors::kValues) * columns + numbers);
  }
  __device__ CellTile(S* shared, int64_t keys_of_head, int64_t columns_here, int tile)
      : keys(shared), K(keys_of_head), columns(columns_here) {
    values = keys + tile * static_cast<int64_t>(Tensors::kKeys) * K;
    scalars = values + tile * static_cast<int64_t>(Tensors::kValues) * columns;
  }

  /// Tokens [t, t + count) of head n, columns from `first` on.
  __device__ void load(const Tensors& in, int64_t n, int64_t t, int count, int64_t first) {
    constexpr int64_t kKeys = Tensors::kKeys, kValues = Tensors::kValues;
    constexpr int64_t kScalars = Tensors::kScalars;
    const int64_t H = in.heads.H, V = in.heads.V, row = in.heads.row(n, t);
    __syncthreads();  // nobody reads the tokens before any more
    resets = 0;
#pragma unroll
    for (int c = 0; c < kMostTile; ++c) {
      resets |= (c < count && in.heads.resets(n, t + c) ? 1u : 0u) << c;
    }
    if constexpr (kKeys > 0) {
      for (int64_t i = threadIdx.x; i < K; i += blockDim.x) {
        bring(in.keys, Cell::kKeys, row * K + i, H * K, count, keys + i, K, kKeys * K);
      }
    }
    for (int64_t j = threadIdx.x; j < min(columns, V - first); j += blockDim.x) {
      bring(in.values, Cell::kValues, row * V + first + j, H * V, count, values + j, columns,
            kValues * columns);
    }
    if constexpr (kScalars > 0) {
      if (threadIdx.x == 0) {
        bring(in.scalars, Cell::kScalars, row, H, count, scalars, 1, kScalars);
      }
    }
    __syncthreads();
  }

  __device__ bool is_reset(int c) const { return (resets >> c & 1) != 0; }
  /// What the cell reads of token c for column j of those here; its values are in `mine`, since the
  /// compiler takes them for changed whenever the cell writes to shared memory.
  __device__ recurrence::Inputs<Cell, S> inputs(int c, int64_t j,
                                                S (&mine)[Tensors::kValues]) const {
    recurrence::Places<Cell, S> at;
    for (size_t r = 0; r < Cell::kKeys.all(); ++r) {
      at.keys[r] = keys + (c * static_cast<int64_t>(Tensors::kKeys) + static_cast<int64_t>(r)) * K;
    }
    for (size_t r = 0; r < Cell::kValues.all(); ++r) {
      mine[r] = value(c, r, j);
      at.values[r] = &mine[r];
    }
    at.scalars = scalars + c * static_cast<int64_t>(Tensors::kScalars);
    return at.inputs();
  }
  __device__ S d_o(int c, int64_t j) const { return value(c, Tensors::kValues - 1, j); }

 private:
  __device__ S value(int c, size_t r, int64_t j) const {
    return values[(c * static_cast<int64_t>(Tensors::kValues) + static_cast<int64_t>(r)) * columns +
                  j];
  }
};

/// A column of K numbers, some `pitch` apart, becomes another, or zeros where `from` is null.
template <class S>
__device__ void copy_column(int64_t K, const S* from, int64_t from_pitch, S* to, int64_t pitch) {
  constexpr int kAtOnce = 32;
  for (int64_t first = 0; first < K; first += kAtOnce) {
    S x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      x[i] = from != nullptr && first + i < K ? from[(first + i) * from_pitch] : S(0);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < K) to[(first + i) * pitch] = x[i];
    }
  }
}
template <class S>
__device__ void clear_column(int64_t K, S* column, int64_t pitch) {
  copy_column<S>(K, nullptr, 0, column, pitch);
}

/// The same into shared memory, where the numbers have arrived after `wait_for_copies`, for the
/// thread that asked for them; elsewhere at once.
template <bool kAtOnce, class S>
__device__ void copy_column_later(int64_t K, const S* from, int64_t from_pitch, S* to,
                                  int64_t pitch) {
  if constexpr (kAtOnce) {
    copy_column(K, from, from_pitch, to, pitch);
  } else {
    for (int64_t i = 0; i < K; ++i) {
      const auto place = static_cast<unsigned>(__cvta_generic_to_shared(to + i * pitch));
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place),
                   "l"(from + i * from_pitch), "n"(sizeof(S))
                   : "memory");
    }
  }
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace regla::cuda
