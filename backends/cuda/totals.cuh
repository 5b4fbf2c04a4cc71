#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// One sum in double over many numbers, in an order that depends on how many they are alone.
namespace regla::cuda {

/// The sum of one number from every thread of a block of `kThreads`, on thread 0.
static __device__ double block_sum(double x) {
  __shared__ double of_warps[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    x = 0;
    for (const double part : of_warps) x += part;
  }
  return x;
}

template <class F>
__global__ __launch_bounds__(kThreads) void sum_parts(int64_t count, F f, double* parts) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  double total = 0;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    total += f(i);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

static __global__ __launch_bounds__(kThreads) void sum_of_parts(int64_t count, const double* parts,
                                                                double scale, Numbers to) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total += parts[i];
  total = block_sum(total);
  if (threadIdx.x == 0) to.set(0, scale * total);
}

/// to = scale * the sum of f(i) over [0, count).
template <class F>
void sum_all(const Context& on, int64_t count, const F& f, double scale, const Numbers& to) {
  constexpr int64_t kMostParts = 1024, kEach = 8;  // blocks; numbers of a thread, at least
  const int64_t wanted = (count + kThreads * kEach - 1) / (kThreads * kEach);
  const int64_t parts = std::clamp<int64_t>(wanted, 1, kMostParts);
  Tensor partial = Tensor::empty({parts}, DType::F64, on.device);
  double* sums = partial.data<double>();
  sum_parts<<<static_cast<unsigned>(parts), kThreads, 0, on.stream>>>(count, f, sums);
  sum_of_parts<<<1, kThreads, 0, on.stream>>>(parts, sums, scale, to);
  require_launched("a sum");
}

}  // namespace regla::cuda
