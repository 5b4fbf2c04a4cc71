#pragma once

#include "backends/cuda/linear_attention_backward_chunks.cuh"

// Gradients of the state behind segments, before the backward pass of all segments at once. Each
// segment's part of the gradient before it,
//
//   L = sum_t (p_t d_o_t) q_t^T,   p_t the decays from the segment's beginning through t,
//
// is summed from the segment's beginning with a running product, so that no sum is ever decayed.
// Then the parts are joined from the last segment: behind segment s the gradient is L + total dS of
// segment s + 1.
namespace regla::cuda {

template <int N>
struct SegmentMemory {
  static constexpr int kPitch = N + 8, kTokens = 32, kBuffers = 2;
  struct Tile {
    Bf16 steady[kTokens * kPitch], left[kTokens * kPitch], log[kTokens * kPitch];
    float scalar[kTokens];
  };
  Tile tiles[kBuffers];
};

/// Parts of segments 1, 2, ... of head blockIdx.x; `totals` [B H, segments - 1, fading].
template <int N, bool kTurned>
__global__ __launch_bounds__(2 * N) void sum_segments(const ChunkedBackward p, float* parts,
                                                      float* totals) {
  using Memory = SegmentMemory<N>;
  constexpr int kPitch = Memory::kPitch;
  extern __shared__ __align__(16) unsigned char bytes[];
  Memory& memory = *reinterpret_cast<Memory*>(bytes);
  const int64_t n = blockIdx.x, slot = n * gridDim.y + blockIdx.y;
  constexpr int kTokens = Memory::kTokens;
  const int begin = (static_cast<int>(blockIdx.y) + 1) * p.segment * (kChunkTokens / kTokens);
  const int end =
      min((p.steps + kTokens - 1) / kTokens, begin + p.segment * (kChunkTokens / kTokens));
  const Head head(static_cast<int>(blockIdx.x), p.H, p.steps);
  const Lane in;
  const auto load = [&](int tile) {
    typename Memory::Tile& to = memory.tiles[tile % Memory::kBuffers];
    const int first = tile * kTokens;
    load_tokens<N, kTokens>(p, to.steady, p.steady.left, p.steady.size, head, first);
    load_tokens<N, kTokens>(p, to.left, p.fading.left, p.fading.size, head, first);
    if (p.fading.log != nullptr) {
      load_tokens<N, kTokens>(p, to.log, p.fading.log, p.fading.size, head, first);
    }
    if (threadIdx.x < kTokens) {
      to.scalar[threadIdx.x] = scalar_log2(p, head, first + static_cast<int>(threadIdx.x));
    }
    end_group();
  };
  StateRows<N> sums;
  float through[2] = {1, 1};
  load(begin);
  for (int tile = begin; tile < end; ++tile) {
    if (tile + 1 < end) load(tile + 1);
    tile + 1 < end ? await_groups<1>() : await_groups<0>();
    __syncthreads();
    const typename Memory::Tile& now = memory.tiles[tile % Memory::kBuffers];
#pragma unroll 2
    for (int block = 0; block < kTokens / 16; ++block) {
      const int corner = 16 * block * kPitch + sums.first;
      RowDecays decays = decays_of(p, in, now.log + corner, kPitch, now.scalar + 16 * block);
      decays.template join<2>(in.member);
      decays.template join<4>(in.member);
      decays.join_all();
      Fragment x;
      in.load_transposed(x, now.left + corner, kPitch);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = scaled(x[i], decays.p[i][0] * through[i % 2], decays.p[i][1] * through[i % 2]);
      }
      sums.add(x, now.steady + 16 * block * kPitch, kPitch);
      through[0] *= decays.total[0];
      through[1] *= decays.total[1];
    }
    __syncthreads();
  }
  const int64_t size = int64_t{p.fading.size} * p.steady.size;
  sums.template each<kTurned>(p, [&](float& x, int at, int) { parts[slot * size + at] = x; });
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int at = sums.first + in.group + 8 * row;
    if (in.member == 0 && at < p.fading.size) totals[slot * p.fading.size + at] = through[row];
  }
}

/// Joins the parts of each head, in their place.
template <bool kTurned>
__global__ void join_segments(const ChunkedBackward p, int segments, float* parts,
                              const float* totals) {
  const int size = p.fading.size * p.steady.size;
  const int at = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (at >= size) return;
  const int row = kTurned ? at / p.steady.size : at % p.fading.size;
  const int64_t n = blockIdx.x, first = n * (segments - 1);
  float gradient = p.d_last == nullptr ? 0 : p.d_last[n * size + at];
#pragma unroll 8
  for (int64_t slot = first + segments - 2; slot >= first; --slot) {
    gradient = parts[slot * size + at] + totals[slot * p.fading.size + row] * gradient;
    parts[slot * size + at] = gradient;
  }
}

}  // namespace regla::cuda
