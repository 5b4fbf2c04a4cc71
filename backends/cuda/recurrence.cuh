#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// Recurrences token by token, for any sizes: what every faster kernel is compared with.
//
// Forward: value columns of a state never meet, so a block has some columns of one head and a
// thread one column, in shared memory. Backward: a block has a head; it runs the tokens of a
// segment again from the state that was kept before it, writes the states before every token to
// scratch memory, and goes back through them.
namespace regla::cuda {

constexpr int64_t kSpan = 64;  // tokens of a segment
constexpr int kReverseThreads = 256, kReverseWarps = kReverseThreads / 32;

inline int64_t segments_of(int64_t steps) { return (steps + kSpan - 1) / kSpan; }

/// Where a forward pass keeps the states before segments, [heads, segments, K, V]: what is there
/// already, or fresh.
template <class S>
S* keep_states(Tensor& kept, int64_t heads, int64_t steps, int64_t K, int64_t V, Device device) {
  if (!kept.defined()) {
    kept = Tensor::empty({heads, segments_of(steps), K, V}, dtype_of<S>, device);
  }
  return kept.data<S>();
}

/// Room in shared memory that a launch asks for, beyond what needs no asking.
template <class Kernel>
void ask_for_shared(Kernel* kernel, size_t bytes) {
  if (bytes <= size_t{48} << 10) return;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "reserve shared memory");
}

/// A block's shared memory, of any type.
template <class S>
__device__ S* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<S*>(bytes);
}

/// Sequences by heads: row(n, t) is token t of head n in tensors [B, T, H, ...].
struct Heads {
  int64_t steps, H, K, V;
  const int32_t* reset;  // [B, T] or null

  __device__ int64_t row(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }
  __device__ bool resets(int64_t n, int64_t t) const {
    return reset != nullptr && reset[n / H * steps + t] != 0;
  }
};

/// A cell has `heads`, loads what all columns share of a token into `kVectors` vectors of K, and
/// moves one column of the state over a token. `first` may be null (zeros), and `kept`.
template <class S, class Cell>
__global__ void run_columns(Cell cell, const S* first, S* last, S* kept) {
  const Heads heads = cell.heads;
  const int64_t K = heads.K, V = heads.V, n = blockIdx.x, pitch = blockDim.x;
  const int64_t j = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const bool exists = j < V;
  S* vectors = shared_memory<S>();
  S* column = vectors + Cell::kVectors * K + threadIdx.x;
  for (int64_t i = 0; i < K; ++i) {
    column[i * pitch] = exists && first != nullptr ? first[(n * K + i) * V + j] : S(0);
  }
  const int64_t segments = (heads.steps + kSpan - 1) / kSpan;
  for (int64_t t = 0; t < heads.steps; ++t) {
    if (kept != nullptr && exists && t % kSpan == 0) {
      S* to = kept + ((n * segments + t / kSpan) * K) * V + j;
      for (int64_t i = 0; i < K; ++i) to[i * V] = column[i * pitch];
    }
    __syncthreads();
    cell.load(n, t, vectors);
    __syncthreads();
    if (exists) cell.step(n, t, j, vectors, column, pitch);
  }
  if (!exists) return;
  for (int64_t i = 0; i < K; ++i) last[(n * K + i) * V + j] = column[i * pitch];
}

template <class S, class Cell>
void launch_columns(const Context& on, int64_t heads, const Cell& cell, const Tensor& first,
                    Tensor last, S* kept) {
  const int64_t K = cell.heads.K, V = cell.heads.V;
  if (heads == 0 || K == 0 || V == 0) return;
  constexpr size_t kMostShared = size_t{96} << 10;
  int64_t columns = V > 32 ? 64 : 32;
  const auto bytes = [&] {
    return static_cast<size_t>(K * (columns + Cell::kVectors)) * sizeof(S);
  };
  while (columns > 1 && bytes() > kMostShared) columns /= 2;
  ask_for_shared(run_columns<S, Cell>, bytes());
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>((V + columns - 1) / columns));
  run_columns<S, Cell><<<grid, static_cast<unsigned>(columns), bytes(), on.stream>>>(
      cell, first ? first.data<S>() : nullptr, last.data<S>(), kept);
  require_launched("a recurrence");
}

/// The sum over the lanes of a warp, on all of them.
template <class S>
__device__ S warp_sum(S x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/// parts[warp][j] over all warps, in order.
template <class S>
__device__ S sum_of_warps(const S* parts, int64_t V, int64_t j) {
  S sum = 0;
  for (int w = 0; w < kReverseWarps; ++w) sum += parts[w * V + j];
  return sum;
}

/// Calls f(i, j) for this thread's part of a matrix [K, V]: rows by warps, columns by lanes.
template <class F>
__device__ void each_pair(int64_t K, int64_t V, F f) {
  for (int64_t i = threadIdx.x / 32; i < K; i += kReverseWarps) {
    for (int64_t j = threadIdx.x % 32; j < V; j += 32) f(i, j);
  }
}

/// Scratch memory of a reverse sweep: the states before the tokens of a segment, and the gradient
/// of the state.
struct ReverseScratch {
  Tensor states, gradient;

  ReverseScratch(int64_t heads, int64_t K, int64_t V, DType dtype, Device device)
      : states(Tensor::empty({heads, kSpan, K, V}, dtype, device)),
        gradient(Tensor::empty({heads, K, V}, dtype, device)) {}
};

}  // namespace regla::cuda
