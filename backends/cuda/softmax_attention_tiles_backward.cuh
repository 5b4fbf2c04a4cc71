#pragma once

#include "backends/cuda/softmax_attention_tiles.cuh"

// What the backward kernels by tiles share.
namespace regla::cuda {

constexpr int kTileRows = 64;  // queries in a stage of the kernels that have keys
constexpr int kNobody = INT32_MAX;

/// What a backward pass reads beside its arguments. By head and query, `padded` of them: queries
/// that do not exist see nothing.
struct BackwardTiles {
  const Narrow* d_o;
  float *shift, *dots;  // [B, H, padded] log-sums to base 2, D
  int32_t* begin;       // [B, padded] first keys
  int32_t* lowest;      // [B, padded / kTileRows] the least of them in a tile
  int padded;
};

/// The numbers of queries that come after `shift`, `dots` and `begin`, and the number of keys that
/// the first of them sees.
struct QueryNumbers {
  const float *shift, *dots;
  const int32_t* begin;
  int end;

  /// Scores of the warp's keys, s0 and on, by rows and of these queries become -infinity where they
  /// are not seen.
  template <int kM, int kN>
  __device__ void hide(int s0, float (&scores)[kM][kN][4]) const {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = 8 * n + lane_of_warp() % 4 * 2 + e % 2, first = begin[t];
#pragma unroll
        for (int i = 0; i < kM; ++i) {
          const int s = s0 + 16 * i + e / 2 * 8 + lane_of_warp() / 4;
          const bool sees = s >= first && s < end + t;
          if (!sees) scores[i][n][e] = -std::numeric_limits<float>::infinity();
        }
      }
    }
  }
};

/// Begins to copy the numbers of a tile of queries of batch b to a stage.
template <class Room>
__device__ void copy_numbers_ahead(const BackwardTiles& g, int64_t b, int head, int tile,
                                   const Room& room, int stage) {
  constexpr int kParts = kTileRows / 4;
  const int which = static_cast<int>(threadIdx.x) / kParts;
  const int at = static_cast<int>(threadIdx.x) % kParts * 4, t = tile * kTileRows + at;
  const int64_t row = int64_t{head} * g.padded + t;
  if (which == 0) copy_ahead(room.shift(stage) + at, g.shift + row);
  if (which == 1) copy_ahead(room.dots(stage) + at, g.dots + row);
  if (which == 2) copy_ahead(room.begin(stage) + at, g.begin + b * g.padded + t);
}

/// The last tile of queries in which one sees a key before `end`; less than `tile`, from where on
/// they are looked at, if there is none.
template <int kThreads>
__device__ int last_tile_that_sees(const TiledAttention& in, const BackwardTiles& g, int head,
                                   int tile, int end, int* room) {
  const int tiles = g.padded / kTileRows;
  if (in.first == nullptr && in.window <= 0) {
    return (static_cast<int>(in.steps) - 1) / kTileRows;
  }
  const int32_t* const lowest = g.lowest + head / in.H * tiles;
  int last = -1;
  for (int i = tile + static_cast<int>(threadIdx.x); i < tiles; i += kThreads) {
    if (lowest[i] < end) last = i;
  }
  return -least_of_warps<kThreads / 32>(__reduce_min_sync(0xffffffffu, -last), room);
}

/// Gradients by the products of warpgroups, of heads of up to 64 features and values.
void reverse_queries_by_warpgroups(const TiledAttention& in, int64_t heads, const BackwardTiles& g,
                                   const Sink& d_q, cudaStream_t stream);
void reverse_keys_by_warpgroups(const TiledAttention& in, int64_t heads, const BackwardTiles& g,
                                const Sink& d_k, const Sink& d_v, cudaStream_t stream);

}  // namespace regla::cuda
