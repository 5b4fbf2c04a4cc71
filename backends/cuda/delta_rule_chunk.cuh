#pragma once

#include "backends/cuda/linear_attention_backward_chunk.cuh"
#include "backends/kernels.h"

// What both passes of the delta rule do with a chunk of 64 tokens. With P = stril(K K^T), G =
// diag(g) and E = V - K S, the errors R = v - S_{t-1}^T k and what is written, U = G R, follow from
//
//     R = (I + P G)^{-1} E        and in reverse        D_U = (I + G P)^{-T} (gradient of U alone)
//
// by blocks of 16 tokens, with one matrix for both: Y = (I + P G)^{-1} P of a block gives
// (I + P G)^{-1} = I - Y G and (I + G P)^{-1} = I - G Y. Nothing is divided.
namespace regla::cuda {

/// A launch: the tensors of DeltaRuleArgs, null where undefined.
struct DeltaRuleChunks {
  const Bf16 *q, *k, *v;
  const float* g;
  const int32_t* reset;
  int64_t steps;
  int chunks, H, K, V;

  /// Token t of head n is this row of tensors [B, T, H, ...].
  __device__ int64_t row(int n, int64_t t) const { return Head(n, H, steps).at(t, 1); }
  /// Tokens of a chunk, up to 64.
  __device__ int tokens(int chunk) const {
    return static_cast<int>(min(steps - int64_t{chunk} * kChunkTokens, int64_t{kChunkTokens}));
  }
};

/// What every launch for these arguments has.
DeltaRuleChunks chunks_of(const DeltaRuleArgs& args);

constexpr int kScorePitch = kChunkTokens + 8;
constexpr int kInversePitch = 20;  // of the 16 x 16 numbers that a warp inverts

/// A lower triangle of scores [query, key] of a chunk, each as the sum of two BF16: what is written
/// to nearly the same keys over and over cancels in sums with them.
struct ScoreTriangle {
  static constexpr int kRestPitch = 24;
  Bf16 rounded[kChunkTokens * kScorePitch];  // above the diagonal: what is left of those below it
  Bf16 rests[4][16 * kRestPitch];            // of the blocks on it

  __device__ Bf16* at(int query, int key) { return rounded + 16 * query * kScorePitch + 16 * key; }
  __device__ const Bf16* at(int query, int key) const {
    return rounded + 16 * query * kScorePitch + 16 * key;
  }
  __device__ Bf16* rest(int query, int key) { return query == key ? rests[query] : at(key, query); }
  __device__ const Bf16* rest(int query, int key) const {
    return query == key ? rests[query] : at(key, query);
  }
  __device__ static int rest_pitch(int query, int key) {
    return query == key ? kRestPitch : kScorePitch;
  }

  __device__ inline void put(int query, int key, Square& sums, float sign, const Lane& in);

  /// c += a times the transpose of a block.
  __device__ void multiply_transposed(Square& c, const Fragment& a, int query, int key,
                                      const Lane& in) const {
    Pair b;
    in.load_as_right_transposed(b, at(query, key), kScorePitch);
    multiply_blocks(c, a, b);
    in.load_as_right_transposed(b, rest(query, key), rest_pitch(query, key));
    multiply_blocks(c, a, b);
  }
  /// c += a times a block.
  __device__ void multiply(Square& c, const Fragment& a, int query, int key, const Lane& in) const {
    Pair b;
    in.load_as_right(b, at(query, key), kScorePitch);
    multiply_blocks(c, a, b);
    in.load_as_right(b, rest(query, key), rest_pitch(query, key));
    multiply_blocks(c, a, b);
  }
};

struct ScoreBlock;

struct ChunkScores {
  ScoreTriangle reads;   // tril(Q K^T)
  ScoreTriangle writes;  // -P, and -Y in the blocks on the diagonal

  __device__ inline void put(const ScoreBlock& block, Square& sums, const Lane& in);
};

/// One number of every token of a chunk.
struct ChunkScalars {
  float g[kChunkTokens];
  int32_t reset[kChunkTokens];

  /// By 64 threads.
  __device__ void load(const DeltaRuleChunks& p, int n, int chunk, int t) {
    const int64_t first = int64_t{chunk} * kChunkTokens;
    const bool is_there = t < p.tokens(chunk);
    copy_word_ahead(g + t, p.g + (is_there ? p.row(n, first + t) : 0), is_there);
    if (p.reset == nullptr) return;
    copy_word_ahead(reset + t, p.reset + (is_there ? n / p.H * p.steps + first + t : 0), is_there);
  }
};

/// What the resets of a chunk leave to be seen.
struct Resets {
  uint64_t tokens;  // bit t: token t resets
  int first, last;  // of them; 64 and 0 if there are none

  __device__ Resets(const ChunkScalars& scalars, const Lane& in) {
    const uint32_t low = __ballot_sync(0xffffffffu, scalars.reset[in.lane] != 0);
    const uint32_t high = __ballot_sync(0xffffffffu, scalars.reset[32 + in.lane] != 0);
    tokens = uint64_t{high} << 32 | low;
    first = tokens == 0 ? kChunkTokens : __ffsll(static_cast<int64_t>(tokens)) - 1;
    last = tokens == 0 ? 0 : 63 - __clzll(static_cast<int64_t>(tokens));
  }
  __device__ bool any() const { return tokens != 0; }
  /// Whether a token meets the state before the chunk, or that behind it meets the token.
  __device__ bool reads(int t) const { return t < first; }
  __device__ bool writes(int t) const { return t >= last; }
  /// Whether token t sees what token s <= t wrote.
  __device__ bool sees(int t, int s) const {
    return ((tokens & ((uint64_t{2} << t) - 1)) >> s >> 1) == 0;
  }
};

/// Two neighbouring elements of a fragment, those that are there.
__device__ inline uint32_t those(bool first, bool second) {
  return (first ? 0x0000ffffu : 0) | (second ? 0xffff0000u : 0);
}

/// Keeps of a fragment the columns of tokens for which f holds, the first one being `token`.
template <class F>
__device__ void keep_columns(Fragment& a, int token, const Lane& in, F f) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = token + 8 * half + 2 * in.member;
    const uint32_t mask = those(f(t), f(t + 1));
    a[2 * half] &= mask;
    a[2 * half + 1] &= mask;
  }
}
/// The same of its rows.
template <class F>
__device__ void keep_rows(Fragment& a, int token, const Lane& in, F f) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (f(token + in.group + 8 * r)) continue;
    a[r] = a[2 + r] = 0;
  }
}
/// The same of the columns of sums.
template <class F>
__device__ void keep_columns(Square& c, int token, const Lane& in, F f) {
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    if (!f(token + e / 4 * 8 + 2 * in.member + e % 2)) c[e / 4][e % 4] = 0;
  }
}

__device__ inline void negate(Fragment& a) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] ^= 0x80008000u;
}

/// Rounds sums whose columns are tokens, times a number for each of these.
__device__ inline void round_scaled(Fragment& to, const Square& from, const float* by,
                                    const Lane& in) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float2 g = *reinterpret_cast<const float2*>(by + 8 * half + 2 * in.member);
    const float(&c)[4] = from[half];
    to[2 * half] = packed(c[0] * g.x, c[1] * g.y);
    to[2 * half + 1] = packed(c[2] * g.x, c[3] * g.y);
  }
}

/// Sums into a tile, by `sign`.
__device__ inline void put_square(const Square& from, Bf16* tile, int pitch, float sign,
                                  const Lane& in) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* const c = from[i / 2] + i % 2 * 2;
    *reinterpret_cast<uint32_t*>(tile + (in.group + i % 2 * 8) * pitch + i / 2 * 8 +
                                 2 * in.member) = packed(sign * c[0], sign * c[1]);
  }
}

__device__ inline void ScoreTriangle::put(int query, int key, Square& sums, float sign,
                                          const Lane& in) {
  put_square(sums, at(query, key), kScorePitch, sign, in);
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    float& x = sums[e / 4][e % 4];
    x -= __bfloat162float(__float2bfloat16_rn(x));
  }
  put_square(sums, rest(query, key), rest_pitch(query, key), sign, in);
}

/// -Y of a block on the diagonal: column by column, forward. `numbers` is this warp's alone.
__device__ inline void invert(const Square& scores, const float* g, float* numbers,
                              ScoreTriangle& to, int block, const Lane& in) {
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const int row = in.group + e % 4 / 2 * 8, column = e / 4 * 8 + 2 * in.member + e % 2;
    numbers[column * kInversePitch + row] = scores[e / 4][e % 4];
  }
  __syncwarp();
  const int column = in.lane % 16;
  float y[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) y[i] = numbers[column * kInversePitch + i];
#pragma unroll
  for (int s = 1; s < 15; ++s) {
    const float z = g[s] * y[s];
#pragma unroll
    for (int t = s + 1; t < 16; ++t) y[t] -= numbers[s * kInversePitch + t] * z;
  }
  if (in.lane < 16) {
#pragma unroll
    for (int t = 0; t < 16; ++t) {
      const Bf16 rounded = __float2bfloat16_rn(-y[t]);
      to.at(block, block)[t * kScorePitch + column] = rounded;
      to.rests[block][t * ScoreTriangle::kRestPitch + column] =
          __float2bfloat16_rn(-y[t] - __bfloat162float(rounded));
    }
  }
  __syncwarp();
}

/// A block of 16 x 16 of one of two lower triangles of 64 x 64.
struct ScoreBlock {
  static constexpr int kAll = 20;
  bool is_write;
  int query, key;

  /// Those on the diagonal first, of writes before those of reads.
  __device__ explicit ScoreBlock(int number) {
    constexpr int kQuery = 0x333221, kKey = 0x210100;
    const int place = (number - 8) % 6 * 4;
    is_write = number < 4 || (number >= 8 && number < 14);
    query = number < 8 ? number % 4 : kQuery >> place & 3;
    key = number < 8 ? number % 4 : kKey >> place & 3;
  }
};

/// Shares these blocks out over warps and calls f(block, whether it may be of writes and on the
/// diagonal, the products of its rows of `reads` or `writes` with those of `right`); tensors of 64
/// rows of N + 8.
template <int N, int kSharers, class F>
__device__ void each_score(int warp, const Bf16* reads, const Bf16* writes, const Bf16* right,
                           const Lane& in, F f) {
  constexpr int kMost = (ScoreBlock::kAll + kSharers - 1) / kSharers;
  constexpr int kTogether = 3;  // none waits for the other, and registers hold no more
#pragma unroll
  for (int first = 0; first < kMost; first += kTogether) {
    Square sums[kTogether] = {};
#pragma unroll
    for (int i = 0; i < N; i += 16) {
#pragma unroll
      for (int j = 0; j < kTogether && first + j < kMost; ++j) {
        const ScoreBlock block(warp + (first + j) * kSharers);
        Fragment a;
        Pair b;
        in.load(a, (block.is_write ? writes : reads) + 16 * block.query * (N + 8) + i, N + 8);
        in.load_as_right_transposed(b, right + 16 * block.key * (N + 8) + i, N + 8);
        multiply_blocks(sums[j], a, b);
      }
    }
#pragma unroll
    for (int j = 0; j < kTogether && first + j < kMost; ++j) {
      const int number = warp + (first + j) * kSharers;
      if (number < ScoreBlock::kAll) f(ScoreBlock(number), first + j == 0, sums[j]);
    }
  }
}

/// Keeps what token t reads of tokens s < t, and, of reads, of itself.
__device__ inline void keep_seen(Square& sums, const ScoreBlock& block, const Resets& resets,
                                 const Lane& in) {
  const int last = block.query != block.key ? 16 : block.is_write ? -1 : 0;  // of s - t that stay
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    const int t = in.group + e % 4 / 2 * 8, s = e / 4 * 8 + 2 * in.member + e % 2;
    float& x = sums[e / 4][e % 4];
    x = picked(s - t <= last, x, 0);
    if (resets.any() && !resets.sees(16 * block.query + t, 16 * block.key + s)) x = 0;
  }
}

__device__ inline void ChunkScores::put(const ScoreBlock& block, Square& sums, const Lane& in) {
  (block.is_write ? writes : reads)
      .put(block.query, block.key, sums, block.is_write ? -1.f : 1.f, in);
}

/// The scores of a chunk, by `kSharers` warps.
template <int N, int kSharers>
__device__ void find_scores(ChunkScores& to, const Bf16* q, const Bf16* k,
                            const ChunkScalars& scalars, float* numbers, int warp, const Lane& in) {
  const Resets resets(scalars, in);
  each_score<N, kSharers>(
      warp, q, k, k, in, [&](const ScoreBlock& block, bool may_invert, Square& sums) {
        keep_seen(sums, block, resets, in);
        if (may_invert && block.is_write && block.query == block.key) {
          invert(sums, scalars.g + 16 * block.query, numbers, to.writes, block.query, in);
        } else {
          to.put(block, sums, in);
        }
      });
}

/// `errors` comes in as E and leaves as R, transposed: 16 columns of values by tokens. u = U.
__device__ inline void solve(Square (&errors)[4], Fragment (&u)[4], const ChunkScores& scores,
                             const float* g, const Lane& in) {
#pragma unroll
  for (int block = 0; block < 4; ++block) {
    Fragment a;
    round_scaled(a, errors[block], g + 16 * block, in);
    scores.writes.multiply_transposed(errors[block], a, block, block, in);
    round_scaled(u[block], errors[block], g + 16 * block, in);
#pragma unroll
    for (int later = block + 1; later < 4; ++later) {
      scores.writes.multiply_transposed(errors[later], u[block], later, block, in);
    }
  }
}

/// d_u += tril(Q K^T)^T dO, transposed; `d_o` are fragments of columns by tokens.
__device__ inline void add_read_gradients(Square (&d_u)[4], const Fragment (&d_o)[4],
                                          const ChunkScores& scores, const Lane& in) {
#pragma unroll
  for (int query = 0; query < 4; ++query) {
#pragma unroll
    for (int key = 0; key <= query; ++key) {
      scores.reads.multiply(d_u[key], d_o[query], query, key, in);
    }
  }
}

/// d_u comes in as dU and leaves as D, transposed; d_v = dV.
__device__ inline void solve_reversed(Square (&d_u)[4], Fragment (&d_v)[4],
                                      const ChunkScores& scores, const float* g, const Lane& in) {
#pragma unroll
  for (int block = 3; block >= 0; --block) {
    Fragment a;
    round_scaled(a, d_u[block], g + 16 * block, in);
    scores.writes.multiply(d_u[block], a, block, block, in);
    round_scaled(d_v[block], d_u[block], g + 16 * block, in);
#pragma unroll
    for (int earlier = block - 1; earlier >= 0; --earlier) {
      scores.writes.multiply(d_u[earlier], d_v[block], block, earlier, in);
    }
  }
}

/// The part of 16 tokens in dS <- dS + Q^T dO - K^T dV, transposed.
template <int N>
__device__ void add_to_state_gradient(Square (&d_state)[N / 16], Fragment& d_o, Fragment& d_v,
                                      const Bf16* q, const Bf16* k, int token, const Resets& resets,
                                      const Lane& in) {
  negate(d_v);
  if (resets.any()) {
    keep_columns(d_o, token, in, [&](int t) { return resets.reads(t); });
    keep_columns(d_v, token, in, [&](int t) { return resets.reads(t); });
  }
#pragma unroll
  for (int i = 0; i < N / 16; ++i) {
    Pair b;
    in.load_as_right(b, q + token * (N + 8) + 16 * i, N + 8);
    multiply_blocks(d_state[i], d_o, b);
    in.load_as_right(b, k + token * (N + 8) + 16 * i, N + 8);
    multiply_blocks(d_state[i], d_v, b);
  }
}

template <int N>
__device__ void clear(Square (&state)[N]) {
#pragma unroll
  for (int i = 0; i < 8 * N; ++i) state[i / 8][i / 4 % 2][i % 4] = 0;
}

/// The errors if a chunk's tokens did not write: v minus what `read` gives, transposed.
__device__ inline void subtract_from_values(Square& read, const Bf16* v, int pitch,
                                            const Lane& in) {
  Fragment values;
  in.load_transposed(values, v, pitch);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpacked(values[i]);
    float* const c = read[i / 2] + i % 2 * 2;
    c[0] = pair.x - c[0];
    c[1] = pair.y - c[1];
  }
}

/// A warp's 16 columns [columns, features] of a state, in registers.
template <int N>
using StateColumns = Square[N / 16];

/// Calls f(number, its element) for what a lane has of them, the first one being `first`, as far as
/// a state [K, V] has them.
template <int N, class F>
__device__ void each_of_state(StateColumns<N>& columns, const DeltaRuleChunks& p, int first,
                              const Lane& in, F f) {
#pragma unroll
  for (int i = 0; i < N / 8; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = 8 * i + 2 * in.member + e % 2, column = first + in.group + e / 2 * 8;
      if (row < p.K && column < p.V) f(columns[i / 2][i % 2][e], row * p.V + column);
    }
  }
}
/// From a state, or zeros for null.
template <int N>
__device__ void load_columns(StateColumns<N>& to, const float* from, const DeltaRuleChunks& p,
                             int first, const Lane& in) {
  clear(to);
  if (from == nullptr) return;
  each_of_state<N>(to, p, first, in, [&](float& x, int at) { x = from[at]; });
}
template <int N>
__device__ void store_columns(StateColumns<N>& from, float* to, const DeltaRuleChunks& p, int first,
                              const Lane& in) {
  each_of_state<N>(from, p, first, in, [&](float& x, int at) { to[at] = x; });
}

}  // namespace regla::cuda
