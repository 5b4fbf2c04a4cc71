#pragma once

#include <cstddef>

#include "backends/cuda/context.h"

// What the threads of a block share: memory, and sums over the lanes of a warp.
namespace regla::cuda {

/// Room in shared memory that a launch asks for, beyond what needs no asking.
template <class Kernel>
void ask_for_shared(Kernel* kernel, size_t bytes) {
  if (bytes <= size_t{48} << 10) return;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "reserve shared memory");
}

/// The most that a block may ask for.
inline size_t most_shared(const Context& on) {
  int bytes = 0;
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, on.device.index),
          "ask for the size of shared memory");
  return static_cast<size_t>(bytes);
}

/// A block's shared memory, of any type.
template <class S>
__device__ S* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<S*>(bytes);
}

/// The sum over the lanes of a warp, on all of them.
template <class S>
__device__ S warp_sum(S x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

}  // namespace regla::cuda
