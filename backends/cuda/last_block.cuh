#pragma once

// What is cut into parts and put together in one launch: by the block that is done last, in the
// order of the parts.
namespace regla::cuda {

/// Whether this block is the last of `count` to come here, all its threads together; what the
/// others wrote before is then seen by them. `done` is 0 before and after.
__device__ inline bool is_last_block(int* done, int count) {
  __shared__ bool answer;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    answer = atomicAdd(done, 1) == count - 1;
    if (answer) *done = 0;
    __threadfence();
  }
  __syncthreads();
  return answer;
}

}  // namespace regla::cuda
