#pragma once

#include <utility>

#include "backends/cuda/context.h"
#include "core/check.h"

// Launches that overlap, for work of many short kernels such as a decoding step: on sm_90 and later
// a kernel may be set up, and fetch weights into the cache, while the ones before it in the stream
// still run. It has to call `await_before` in every thread before it reads or writes what others
// may write or read, fetching ahead aside; from then on it is as behind any other kernel. On older
// devices it begins when the one before has ended, and all of this does nothing.
namespace regla::cuda {

/// Lets the kernel behind this one be set up, as soon as all blocks came here.
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until all kernels before this one have ended and what they wrote can be read.
__device__ inline void await_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Asks for 128 bytes to be in the second-level cache. It reads nothing, so that it may come before
/// somebody writes there.
__device__ inline void fetch_ahead(const void* place) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(place));
}

/// Launches a kernel that calls `await_before`.
template <class... Parameters, class... Arguments>
void launch_chained(const Context& on, void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                    size_t shared, Arguments&&... arguments) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = on.stream;
  config.attrs = &overlap;
  config.numAttrs = on.chains_launches ? 1 : 0;
  const cudaError_t status =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  check(status == cudaSuccess, "[cuda] cannot launch ", blocks.x, " x ", blocks.y, " blocks of ",
        threads, " threads with ", shared, " bytes: ", cudaGetErrorString(status));
}

}  // namespace regla::cuda
