#pragma once

#include "backends/cuda/linear_attention_backward_chunk.cuh"
#include "backends/cuda/linear_attention_keys.cuh"

// Decays that all components of a token share: then scores decay, before they are rounded, in place
// of operands.
namespace regla::cuda {

/// The log of a factor that is 0: what differs by more keeps its digits beside it.
constexpr float kNothingLog2 = -160;

/// The log to base 2 of their product over a chunk's
/// tokens up to each one, those of tokens `lane` and 32 + `lane`.
struct Through {
  float logs[2];

  Through() = default;
  __device__ Through(const float* scalars, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      logs[half] = larger_or_nan(scalars[32 * half + lane], kNothingLog2);
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, logs[half], offset);
        logs[half] += lane < offset ? 0 : before;
      }
    }
    logs[1] += __shfl_sync(0xffffffffu, logs[0], 31);
  }

  /// Up to token t, which lies in the same half of the chunk for all lanes.
  __device__ float operator()(int t) const {
    return __shfl_sync(0xffffffffu, t < 32 ? logs[0] : logs[1], t % 32);
  }
  /// The factors from the chunk's beginning up to token t itself, and behind it up to the end.
  __device__ float from_before(int t) const { return fast_exp2((*this)(t)); }
  __device__ float to_behind(int t) const {
    return fast_exp2((*this)(kChunkTokens - 1) - (*this)(t));
  }

  /// Scores of the tokens of two blocks of 16, times the decays from one to the other.
  __device__ void fade(Square& scores, int rows, int columns, const Lane& in) const {
    float of_row[2], of_column[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      of_row[i] = (*this)(16 * rows + in.group + 8 * i);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        of_column[i][e] = (*this)(16 * columns + 8 * i + 2 * in.member + e);
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = 16 * rows + in.group + i % 4 / 2 * 8;
      const int column = 16 * columns + 8 * (i / 4) + 2 * in.member + i % 2;
      const float apart = of_row[i % 4 / 2] - of_column[i / 4][i % 2];
      scores[i / 4][i % 4] *= fast_exp2(row > column ? apart : -apart);
    }
  }
};

/// The log to base 2 of their product over a tile's tokens up to
/// each one, that of token `lane`.
struct TileThrough {
  float log;

  template <class Memory>
  __device__ TileThrough(const Memory& tile, const Lane& in) {
    log = larger_or_nan(tile.scalar_log2(in.lane), kNothingLog2);
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const float before = __shfl_up_sync(0xffffffffu, log, offset);
      log += in.lane < offset ? 0 : before;
    }
  }
  __device__ float operator()(int t) const { return __shfl_sync(0xffffffffu, log, t); }

  /// Scores times the decays from key to query; 0 where the key is behind it.
  __device__ void fade(ScoreSums& scores, const Lane& in) const {
    float of_query[4], of_key[4][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      of_query[i] = (*this)(8 * i + in.group);
#pragma unroll
      for (int e = 0; e < 2; ++e) of_key[i][e] = (*this)(8 * i + 2 * in.member + e);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool is_seen = 2 * in.member + e <= in.group;
      const auto factor = [&](int query, int key) {
        return fast_exp2(of_query[query] - of_key[key][e]);
      };
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float(&own)[3][2] = scores.own[half];
        const int first = 2 * half;
        own[0][e] = is_seen ? own[0][e] * factor(first, first) : 0;
        own[1][e] *= factor(first + 1, first);
        own[2][e] = is_seen ? own[2][e] * factor(first + 1, first + 1) : 0;
        scores.across[half][e] *= factor(2, half);
        scores.across[half][e + 2] *= factor(3, half);
      }
    }
  }
  /// Those of block `number` of 16 tokens, as a part of the tile.
  __device__ RowDecays of_block(int number, const Lane& in) const {
    RowDecays decays;
    const float all = (*this)(kTileTokens - 1);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float up_to = (*this)(16 * number + i / 2 * 8 + 2 * in.member + e);
        decays.p[i][e] = fast_exp2(up_to);
        decays.r[i][e] = fast_exp2(all - up_to);
      }
      decays.total[i] = fast_exp2(all);
    }
    return decays;
  }
};

}  // namespace regla::cuda
