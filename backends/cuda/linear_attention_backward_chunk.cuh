#pragma once

#include "backends/cuda/decays.cuh"
#include "backends/cuda/linear_attention_chunk.cuh"

// What a block of the backward pass holds of a chunk of tokens in shared memory, and how it comes
// there.
namespace regla::cuda {

/// One axis of the state. A token reads with `left` and writes with `right`: q and k on the axis of
/// keys, d_o and u on that of values, since o[j] = sum_i q[i] S[i,j] has the gradient d_q[i] =
/// sum_j d_o[j] S[i,j].
struct BackwardAxis {
  const Bf16 *left, *right, *log;        // [B, T, H, size]; log is null where nothing decays
  Result<float> d_left, d_right, d_log;  // d_left of the axis of values: o, never wanted
  int size;
};

/// A launch. Scalar decays and resets act on the fading axis. Only where both decay has the steady
/// one logs, too.
struct ChunkedBackward {
  BackwardAxis fading, steady;
  const float* log_s;    // [B, T, H] or null
  const int32_t* reset;  // [B, T] or null
  const Bf16* kept;      // [B H, chunks, K, V] states before chunks
  const float* d_last;   // [B H, K, V] gradient of the state behind all tokens, or null
  const float* d_ends;   // [B H, segments, K, V] gradients behind segments but the last one
  Result<float> d_log_s, d_first;
  int steps, chunks, segment, H;  // chunks of a segment
};

using Fragment = uint32_t[4];  // 16 x 16: A
using Pair = uint32_t[4];      // 16 x 16: two of B, registers 0 and 1 for its first 8 columns
using Square = float[2][4];    // 16 x 16: two of C

/// c += a b
__device__ inline void multiply_blocks(Square& c, const Fragment& a, const Pair& b) {
  multiply_add(c[0], a, b[0], b[1]);
  multiply_add(c[1], a, b[2], b[3]);
}
__device__ inline void round(Fragment& to, const Square& from) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    to[2 * i] = packed(from[i][0], from[i][1]);
    to[2 * i + 1] = packed(from[i][2], from[i][3]);
  }
}
/// The transpose.
__device__ inline void round_transposed(Pair& to, const Square& from) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    to[i] = packed(from[i][0], from[i][1]);
    to[2 + i] = packed(from[i][2], from[i][3]);
  }
}

/// The scalar decay of token t, as its log to base 2.
__device__ inline float scalar_log2(const ChunkedBackward& p, const Head& head, int t) {
  if (t >= p.steps) return 0;
  return scalar_log2(p.reset != nullptr && p.reset[head.token + t] != 0,
                     p.log_s == nullptr ? 0 : p.log_s[head.at(t, 1)]);
}

/// Decays of 16 components over 16 tokens; `logs` is their tile, and nothing where only scalars
/// decay; `scalars` has one for each token, or is null.
__device__ inline RowDecays decays_of(bool has_logs, const Lane& in, const Bf16* logs, int pitch,
                                      const float* scalars) {
  Fragment pairs;
  in.load_transposed(pairs, logs, pitch);
  if (!has_logs) {
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = 0;
  }
  float factors[4][2];
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    float2 scalar = {};
    if (scalars != nullptr) {
      scalar = *reinterpret_cast<const float2*>(scalars + 8 * tile + 2 * in.member);
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      factors_of(factors[2 * tile + row], pairs[2 * tile + row], scalar.x, scalar.y);
    }
  }
  return RowDecays(factors);
}

/// Begins to copy tokens of a tensor of an axis to rows of N + 8; what is not there is 0.
template <int N, int kTokens>
__device__ void load_tokens(const ChunkedBackward& p, Bf16* to, const Bf16* from, int size,
                            const Head& head, int first) {
  copy_rows<N, kTokens, 2 * N>(to, from + head.at(first, size), p.H * size, size, p.steps - first,
                               static_cast<int>(threadIdx.x));
}

/// 16 rows [fading, steady] of a state for each warp.
template <int N>
struct StateRows {
  int first;  // row
  Square d[N / 16] = {};

  __device__ StateRows() : first(static_cast<int>(threadIdx.x) / 32 * 16) {}

  /// Calls f(element, its position in a state, its row of the two that a lane has) where there is
  /// one.
  template <bool kTurned, class F>
  __device__ void each(const ChunkedBackward& p, F f) {
    const Lane in;
    const int row = first + in.group, column = 2 * in.member;
    const int down = kTurned ? p.steady.size : 1, right = kTurned ? 1 : p.fading.size;
    const int corner = row * down + column * right;
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      if (8 * i >= p.steady.size) break;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (first >= p.fading.size) continue;
        f(d[i / 2][i % 2][e], corner + e / 2 * 8 * down + (8 * i + e % 2) * right, e / 2);
      }
    }
  }

  /// += a times 16 tokens of the steady axis.
  __device__ void add(const Fragment& a, const Bf16* tokens, int pitch) {
    const Lane in;
#pragma unroll
    for (int i = 0; i < N / 16; ++i) {
      Pair b;
      in.load_as_right(b, tokens + 16 * i, pitch);
      multiply_blocks(d[i], a, b);
    }
  }
  /// Times a factor of each column.
  __device__ void decay_columns(const float* by) {
    const Lane in;
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const float2 pair = *reinterpret_cast<const float2*>(by + 8 * i + 2 * in.member);
      float(&c)[4] = d[i / 2][i % 2];
      c[0] *= pair.x;
      c[1] *= pair.y;
      c[2] *= pair.x;
      c[3] *= pair.y;
    }
  }
  __device__ void decay(float above, float below) {
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      float(&c)[4] = d[i / 2][i % 2];
      c[0] *= above;
      c[1] *= above;
      c[2] *= below;
      c[3] *= below;
    }
  }
};

/// Decays of the steady axis where both decay, and nothing where one does.
template <int N, bool kBoth>
struct SteadyDecays {};
template <int N>
struct SteadyDecays<N, true> {
  Bf16 log[kChunkTokens * (N + 8)];
  float total[4][N];  // over blocks of 16 tokens
};

/// For up to N components of either axis.
template <int N, bool kBoth>
struct BackwardMemory {
  static constexpr int kParts = N / 64, kWarps = 4 * kParts;  // 64 components, 16 tokens each
  static constexpr int kBuffers = N == 64 && !kBoth ? 2 : 1;
  static constexpr int kPitch = N + 8, kTokenPitch = kChunkTokens + 8;

  /// Read by all warps. Where both axes decay, left becomes left decayed from the beginning of a
  /// block of 16 tokens, and right is decayed to its end.
  struct Steady : SteadyDecays<N, kBoth> {
    Bf16 left[kChunkTokens * kPitch], right[kChunkTokens * kPitch];
    Bf16 state[N * kPitch];  // before the chunk, as it was kept
  };
  Steady steady[kBuffers];
  // Each warp reads its tokens and components, and puts gradients in their place.
  Bf16 left[kChunkTokens * kPitch], right[kChunkTokens * kPitch], log[kChunkTokens * kPitch];
  // [components, tokens]: left decayed from the beginning of a block of 16 tokens, right decayed to
  // its end.
  Bf16 queries[N * kTokenPitch], keys[N * kTokenPitch];
  Bf16 d_state[N * kPitch];  // [fading, steady] behind the chunk
  float total[4][N];         // decays over blocks
  Bf16 narrow_total[4][N];
  float sums[4][N];  // terms of d_log over blocks
  // sum_i S dS behind the chunk, without what the chunk wrote to S, which `written` has over
  // blocks.
  float boundary[N];
  float written[4][N];
  float scalar[kChunkTokens];
  float row_sums[kParts][kChunkTokens];
  // Scores of a part of the components; where both axes decay they come before queries and keys.
  static constexpr int kScores = kParts == 1 ? 1 : kWarps * 32 * 20;
  float own_parts[kBoth ? 1 : kScores];

  __device__ float* parts() {
    static_assert(kScores * sizeof(float) <= sizeof(queries) + sizeof(keys));
    return kBoth ? reinterpret_cast<float*>(queries) : own_parts;
  }
};

}  // namespace regla::cuda
