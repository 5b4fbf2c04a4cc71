#include "backends/cuda/chained.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

/// One warp per sequence: a running maximum of the places of resets, 32 tokens at a time.
__global__ void wind_positions(int64_t steps, const int32_t* start, const int32_t* reset,
                               int32_t* positions, int32_t* next) {
  let_next_begin();
  await_before();
  const int64_t b = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  // A token's position is its distance from here: the last reset, or before the first token.
  int origin = start == nullptr ? 0 : -start[b];
  for (int64_t first = 0; first < steps; first += 32) {
    const int64_t t = first + lane;
    const bool resets = reset != nullptr && t < steps && reset[b * steps + t] != 0;
    const unsigned resetting = __ballot_sync(0xffffffffu, resets);
    const unsigned until = resetting & (0xffffffffu >> (31 - lane));  // those of lanes 0..lane
    const int from =
        until == 0 ? origin : static_cast<int>(first) + 31 - __clz(static_cast<int>(until));
    if (t < steps) positions[b * steps + t] = static_cast<int>(t) - from;
    origin = __shfl_sync(0xffffffffu, from, 31);
  }
  if (lane == 0) next[b] = static_cast<int32_t>(steps) - origin;
}

}  // namespace

void positions(const Tensor& start, const Tensor& reset, Tensor positions, Tensor next) {
  const int64_t B = positions.dim(0), steps = positions.dim(1);
  if (B == 0) return;
  launch_chained(context(positions), wind_positions, dim3(static_cast<unsigned>(B)), 32, 0, steps,
                 start ? start.data<int32_t>() : nullptr, reset ? reset.data<int32_t>() : nullptr,
                 positions.data<int32_t>(), next.data<int32_t>());
}

void first_keys(const Tensor& positions, int64_t past, Tensor first) {
  const int64_t steps = positions.dim(1);
  const auto* position = positions.data<int32_t>();
  auto* out = first.data<int32_t>();
  for_each(context(first), positions.numel(), [=] __device__(int64_t i) {
    const auto begin = static_cast<int32_t>(past + i % steps) - position[i];
    out[i] = begin > 0 ? begin : 0;
  });
}

}  // namespace regla::cuda
