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

template <int N, bool kBoth>
struct SegmentMemory {
  static constexpr int kPitch = N + 8, kTokens = 32, kBuffers = 2;
  struct Tile {
    Bf16 steady[kTokens * kPitch], left[kTokens * kPitch], log[kTokens * kPitch];
    Bf16 steady_log[kBoth ? kTokens * kPitch : 8];
    float scalar[kTokens];
  };
  Tile tiles[kBuffers];
};

/// What segments 1, 2, ... of all heads give: `parts` [B H, segments - 1, K, V], and decays over
/// them, `fading` and `steady` [B H, segments - 1, size].
struct SegmentSums {
  float *parts, *fading, *steady;  // steady is null where that axis does not decay
};

/// Loads 16 tokens of 16 components, transposed, decayed from where `through` begins, which moves
/// on.
__device__ inline void load_decayed(Fragment& x, const Bf16* tokens, const Bf16* logs,
                                    const float* scalars, int pitch, float (&through)[2],
                                    const Lane& in) {
  RowDecays decays =
      decays_of(logs != nullptr, in, logs == nullptr ? tokens : logs, pitch, scalars);
  decays.template join<2>(in.member);
  decays.template join<4>(in.member);
  decays.join_all();
  in.load_transposed(x, tokens, pitch);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[i] = scaled(x[i], decays.p[i][0] * through[i % 2], decays.p[i][1] * through[i % 2]);
  }
  through[0] *= decays.total[0];
  through[1] *= decays.total[1];
}

/// The sums of segment blockIdx.y + 1 of head blockIdx.x.
template <int N, bool kTurned, bool kBoth>
__global__ __launch_bounds__(2 * N) void sum_segments(const ChunkedBackward p,
                                                      const SegmentSums to) {
  using Memory = SegmentMemory<N, kBoth>;
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
    if constexpr (kBoth) {
      load_tokens<N, kTokens>(p, to.steady_log, p.steady.log, p.steady.size, head, first);
    }
    if (threadIdx.x < kTokens) {
      to.scalar[threadIdx.x] = scalar_log2(p, head, first + static_cast<int>(threadIdx.x));
    }
    end_group();
  };
  StateRows<N> sums;
  float through[2] = {1, 1}, steady_through[2] = {1, 1};
  load(begin);
  for (int tile = begin; tile < end; ++tile) {
    if (tile + 1 < end) load(tile + 1);
    tile + 1 < end ? await_groups<1>() : await_groups<0>();
    __syncthreads();
    typename Memory::Tile& now = memory.tiles[tile % Memory::kBuffers];
    if constexpr (kBoth) {
      for (int block = 0; block < kTokens / 16; ++block) {
        const int corner = 16 * block * kPitch + sums.first;
        Fragment x;
        load_decayed(x, now.steady + corner, now.steady_log + corner, nullptr, kPitch,
                     steady_through, in);
        __syncwarp();
        in.put_transposed(x, now.steady + corner, kPitch);
      }
      __syncthreads();
    }
#pragma unroll 2
    for (int block = 0; block < kTokens / 16; ++block) {
      const int corner = 16 * block * kPitch + sums.first;
      Fragment x;
      load_decayed(x, now.left + corner, p.fading.log == nullptr ? nullptr : now.log + corner,
                   now.scalar + 16 * block, kPitch, through, in);
      sums.add(x, now.steady + 16 * block * kPitch, kPitch);
    }
    __syncthreads();
  }
  const int64_t size = int64_t{p.fading.size} * p.steady.size;
  sums.template each<kTurned>(p, [&](float& x, int at, int) { to.parts[slot * size + at] = x; });
  if (in.member != 0) return;
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int at = sums.first + in.group + 8 * row;
    if (at < p.fading.size) to.fading[slot * p.fading.size + at] = through[row];
    if (kBoth && at < p.steady.size) to.steady[slot * p.steady.size + at] = steady_through[row];
  }
}

/// Joins the parts of each head, in their place.
template <bool kTurned>
__global__ void join_segments(const ChunkedBackward p, int segments, const SegmentSums of) {
  const int fading = p.fading.size, steady = p.steady.size, size = fading * steady;
  const int at = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (at >= size) return;
  const int row = kTurned ? at / steady : at % fading;
  const int column = kTurned ? at % steady : at / fading;
  const int64_t n = blockIdx.x, first = n * (segments - 1);
  float gradient = p.d_last == nullptr ? 0 : p.d_last[n * size + at];
#pragma unroll 8
  for (int64_t slot = first + segments - 2; slot >= first; --slot) {
    float total = of.fading[slot * fading + row];
    if (of.steady != nullptr) total *= of.steady[slot * steady + column];
    gradient = of.parts[slot * size + at] + total * gradient;
    of.parts[slot * size + at] = gradient;
  }
}

}  // namespace regla::cuda
