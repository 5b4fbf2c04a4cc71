#pragma once

#include "backends/cuda/decays.cuh"
#include "backends/cuda/linear_attention_chunk.cuh"

// Decays on the key axis. Features never meet but in the scores, so the warps share them out: each
// makes the products of its features' decays over the 32 tokens of a tile, level by level, and its
// part of the scores. Queries become those that read the state before the tile and keys those that
// write the one behind it, in place. What is left to do knows no decay on this axis any more.
namespace regla::cuda {

/// Scores (query, key) of a tile of 32 tokens, a lane's part. `own` are those of each half: queries
/// and keys [0, 8), queries [8, 16) and keys [0, 8), queries and keys [8, 16); `across` those of
/// the second half with the first.
struct ScoreSums {
  float own[2][3][2];
  float across[2][4];  // keys [0, 8), keys [8, 16); a C fragment each
};
constexpr int kScoreSums = sizeof(ScoreSums) / sizeof(float);

/// The same as operands of the products with what is written.
struct Scores {
  uint32_t own[2][3];
  uint32_t across[2][2];  // queries [0, 8), [8, 16); a B fragment each

  __device__ explicit Scores(const ScoreSums& sums) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 3; ++i) own[half][i] = packed(sums.own[half][i][0], sums.own[half][i][1]);
#pragma unroll
      for (int keys = 0; keys < 2; ++keys) {
        const float* const c = sums.across[keys];
        across[half][keys] = packed(c[2 * half], c[2 * half + 1]);
      }
    }
  }
};

/// What the warps tell each other, in shared memory.
template <int K>
struct KeyExchange {  // of a tile
  static constexpr int kParts = K / 16 < kWarps ? K / 16 : kWarps;
  float sums[kParts][kScoreSums][32];
  float totals[K];

  __device__ void put(int part, const ScoreSums& from, int lane) {
    const float* const numbers = &from.own[0][0][0];
#pragma unroll
    for (int i = 0; i < kScoreSums; ++i) sums[part][i][lane] = numbers[i];
  }
  __device__ ScoreSums total(int lane) const {
    ScoreSums all = {};
    float* const numbers = &all.own[0][0][0];
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < kScoreSums; ++i) numbers[i] += sums[part][i][lane];
    }
    return all;
  }
};

/// In place of it where no key decays.
struct NoKeyExchange {};

/// 16 tokens and 16 features of queries and keys with their decays.
struct KeyBlock {
  uint32_t q[4], k[4];
  ColumnDecays decays;

  __device__ static void scale(uint32_t (&to)[4], const uint32_t (&from)[4],
                               const float (&by)[4][2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = scaled(from[i], by[i][0], by[i][1]);
  }
  __device__ void queries(uint32_t (&to)[4]) const { scale(to, q, decays.p); }
  __device__ void keys(uint32_t (&to)[4]) const { scale(to, k, decays.r); }

  /// own += the products of q and k that belong to a level within 8 tokens.
  __device__ static void add_level(float (&own)[3][2], const uint32_t (&q)[4],
                                   const uint32_t (&k)[4], uint32_t level) {
    float first[4], second[4];
    multiply(first, q, k[0], k[2]);
    multiply(second, q, k[1], k[3]);
    if (level & 0x0000ffffu) {
      own[0][0] += first[0];
      own[2][0] += second[2];
    }
    if (level & 0xffff0000u) {
      own[0][1] += first[1];
      own[2][1] += second[3];
    }
  }
  /// Adds the scores within the block, all levels. Decays are joined to blocks of 16.
  __device__ void add_scores(float (&own)[3][2], const Levels& levels, const Lane& in) {
    uint32_t x[4], y[4];
    add_level(own, q, k, levels.itself);
    queries(x);
    add_level(own, x, k, levels.of_1);
    decays.join<1>(in.group);
    queries(x);
    keys(y);
    add_level(own, x, y, levels.of_2);
    decays.join<2>(in.group);
    queries(x);
    keys(y);
    add_level(own, x, y, levels.of_4);
    decays.join<4>(in.group);
    queries(x);
    keys(y);
    float all[4];
    multiply(all, x, y[0], y[2]);
    own[1][0] += all[2];
    own[1][1] += all[3];
    decays.join_all();
  }
};

template <int K>
__device__ KeyBlock key_block(const Tile<K, true>& tile, int token, int feature, bool with_scalars,
                              const Lane& in) {
  uint32_t logs[4];
  float factors[4][2];
  const int at = token * Tile<K, true>::kPitch + feature;
  in.load(logs, tile.log_a + at, (Tile<K, true>::kPitch));
  const float scalars[2] = {with_scalars ? tile.scalar_log2(token + in.group) : 0,
                            with_scalars ? tile.scalar_log2(token + in.group + 8) : 0};
#pragma unroll
  for (int i = 0; i < 4; ++i) factors_of(factors[i], logs[i], scalars[i % 2], scalars[i % 2]);
  KeyBlock block = {{}, {}, ColumnDecays(factors)};
  in.load(block.q, tile.q + at, (Tile<K, true>::kPitch));
  in.load(block.k, tile.k + at, (Tile<K, true>::kPitch));
  return block;
}

/// Writes a fragment of 16 tokens by 16 features back to where it was loaded from.
__device__ inline void put_back(const uint32_t (&from)[4], Bf16* tile, int pitch, const Lane& in) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    Bf16* const to = tile + (in.group + i % 2 * 8) * pitch + 2 * in.member + i / 2 * 8;
    *reinterpret_cast<uint32_t*>(to) = from[i];
  }
}

/// A tile's scores, and its queries, keys and totals over all of its tokens.
template <int K>
__device__ void prepare_keys(const Tile<K, true>& tile, KeyExchange<K>& to, bool with_scalars,
                             const Levels& levels, const Lane& in) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr int kParts = KeyExchange<K>::kParts;
  if (warp >= kParts) return;
  ScoreSums sums = {};
  for (int feature = warp * 16; feature < K; feature += kParts * 16) {
    KeyBlock first = key_block(tile, 0, feature, with_scalars, in);
    KeyBlock second = key_block(tile, 16, feature, with_scalars, in);
    first.add_scores(sums.own[0], levels, in);
    second.add_scores(sums.own[1], levels, in);
    uint32_t x[4], y[4];
    second.queries(x);
    first.keys(y);
    multiply_add(sums.across[0], x, y[0], y[2]);
    multiply_add(sums.across[1], x, y[1], y[3]);
    join(first.decays, second.decays);

    __syncwarp();
    constexpr int kPitch = Tile<K, true>::kPitch;
    first.queries(x);
    put_back(x, tile.q + feature, kPitch, in);
    first.keys(y);
    put_back(y, tile.k + feature, kPitch, in);
    second.queries(x);
    put_back(x, tile.q + feature + 16 * kPitch, kPitch, in);
    second.keys(y);
    put_back(y, tile.k + feature + 16 * kPitch, kPitch, in);
    if (in.group == 0) {
      float* const totals = to.totals + feature + 2 * in.member;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        totals[e] = first.decays.total[0][e];
        totals[e + 8] = first.decays.total[2][e];
      }
    }
  }
  to.put(warp, sums, in.lane);
}

}  // namespace regla::cuda
