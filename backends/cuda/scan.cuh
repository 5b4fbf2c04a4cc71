#pragma once

#include <cstdint>

#include "backends/cuda/context.h"

// Scans along time: a block per sequence, a stretch of neighbouring tokens per thread. What joins
// to what depends on the length alone.
namespace regla::cuda {

constexpr int kScanThreads = 512;

/// Tokens [begin, end) of this thread, of so many.
struct Stretch {
  int64_t begin, end;
  __device__ explicit Stretch(int64_t steps, int thread = static_cast<int>(threadIdx.x)) {
    const int64_t each = (steps + kScanThreads - 1) / kScanThreads;
    begin = min(thread * each, steps);
    end = min(begin + each, steps);
  }
};

/// The value of the lane `offset` below; X is made of words of 4 bytes.
template <class X>
__device__ X shuffled_up(const X& x, int offset) {
  constexpr int kWords = sizeof(X) / sizeof(uint32_t);
  static_assert(sizeof(X) % sizeof(uint32_t) == 0);
  X out;
  const auto* from = reinterpret_cast<const uint32_t*>(&x);
  auto* to = reinterpret_cast<uint32_t*>(&out);
#pragma unroll
  for (int i = 0; i < kWords; ++i) to[i] = __shfl_up_sync(0xffffffffu, from[i], offset);
  return out;
}

/// What the x of lanes 0 to this one join to, earlier ones first.
template <class X, class F>
__device__ X joined_to_lane(X x, F joined) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int offset = 1; offset < 32; offset *= 2) {
    const X earlier = shuffled_up(x, offset);
    if (lane >= offset) x = joined(earlier, x);
  }
  return x;
}

/// What `start` and the x of all threads before this one join to. All threads of the block.
template <class X, class F>
__device__ X joined_before(const X& start, X x, F joined) {
  constexpr int kWarps = kScanThreads / 32;
  __shared__ X of_warps[kWarps];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  x = joined_to_lane(x, joined);
  __syncthreads();  // before a scan that came earlier is written over
  if (lane == 31) of_warps[warp] = x;
  __syncthreads();
  if (warp == 0) {  // lanes from kWarps on repeat the last, and nobody reads them
    const X total = joined_to_lane(of_warps[min(lane, kWarps - 1)], joined);
    __syncwarp();  // all have read
    if (lane < kWarps) of_warps[lane] = total;
  }
  __syncthreads();
  X before = warp == 0 ? start : joined(start, of_warps[warp - 1]);
  const X neighbour = shuffled_up(x, 1);
  return lane == 0 ? before : joined(before, neighbour);
}

}  // namespace regla::cuda
