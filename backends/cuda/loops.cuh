#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/context.h"

// Loops over independent elements: the GPU's side of cpu/loops.h.
namespace regla::cuda {

constexpr int kThreads = 256;

/// Blocks of `kThreads` for so many threads' work: they fill the GPU, and no more.
inline unsigned blocks_for(const Context& on, int64_t threads) {
  constexpr int kBlocksPerMultiprocessor = 8;
  const int64_t most = int64_t{on.multiprocessors} * kBlocksPerMultiprocessor;
  return static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, most));
}

template <class F>
__global__ void each(int64_t count, F f) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) f(i);
}

/// Calls `f(i)` for every i in [0, count).
template <class F>
void for_each(const Context& on, int64_t count, F f) {
  if (count == 0) return;
  each<<<blocks_for(on, count), kThreads, 0, on.stream>>>(count, f);
  require_launched("elementwise");
}

}  // namespace regla::cuda
