#pragma once

#include "backends/cuda/linear_attention_backward_rows.cuh"

namespace regla::cuda {

/// The scores of a block's 16 tokens with each other.
struct OwnScores {
  Square lower = {};        // queries by keys; what is not below the diagonal means nothing
  float itself[2][2] = {};  // of tokens with themselves, [tile][token of a pair]
};

/// The scores of a warp's 16 tokens with each other where components decay, level by level.
template <int N, bool kTurned, bool kBoth>
struct BackwardScores : BackwardRows<N, kTurned, kBoth> {
  using Base = BackwardRows<N, kTurned, kBoth>;
  using Base::Base;
  using Base::block;
  using Base::in;
  using Base::kPitch;
  using Base::memory;
  using Base::part;
  using Base::warp;
  using typename Base::Memory;

  // ---- at once, where nothing is forgotten within a block

  /// Whether decays over the block, of these 16 components, may be divided by. What a token writes
  /// is then scaled by the inverse of its own decay from the block's beginning, and all levels are
  /// one product. BF16 and F32 have room for factors of 2^60; roundings are those of the levels.
  __device__ static bool can_divide(const RowDecays& decays) {
    constexpr float kLeast = 0x1p-60f;
    return __all_sync(0xffffffffu, decays.total[0] >= kLeast && decays.total[1] >= kLeast) != 0;
  }
  /// x: what the block's tokens read with; w: what they write, by `inverse`.
  __device__ static void divide(Fragment& w, float (&inverse)[4][2], const RowDecays& decays,
                                const Fragment& right) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) inverse[i][e] = reciprocal(decays.p[i][e]);
      w[i] = scaled(right[i], inverse[i][0], inverse[i][1]);
    }
  }
  /// Their scores.
  __device__ static void score_divided(Square& lower, const Fragment& x, const Fragment& w) {
    const Fragment a = {transposed(x[0]), transposed(x[2]), transposed(x[1]), transposed(x[3])};
    multiply_add(lower[0], a, transposed(w[0]), transposed(w[1]));
    multiply_add(lower[1], a, transposed(w[2]), transposed(w[3]));
  }

  // ---- level by level: of each pair of blocks of kTokens, the second one's tokens read

  /// Whether this lane's tokens of a level read.
  template <int kTokens>
  __device__ bool reads(int i, int e) const {
    return kTokens == 1 ? e == 1 : kTokens == 8 ? i >= 2 : (in.member & (kTokens / 2)) != 0;
  }
  /// Of scores of 8 x 8 tokens, whichever of both reads, those that belong to a level.
  template <int kTokens>
  __device__ bool has_level(int e) const {
    const int apart = in.group ^ (2 * in.member + e);
    return apart / kTokens == 1 || (kTokens == 4 && apart >= 4);
  }
  template <int kTokens>
  __device__ uint32_t level() const {
    return (has_level<kTokens>(0) ? 0x0000ffffu : 0) | (has_level<kTokens>(1) ? 0xffff0000u : 0);
  }

  /// x: what the level's tokens read or are read with, and its factors.
  template <int kTokens>
  __device__ void scale_level(Fragment& x, float (&factor)[4][2], const RowDecays& decays,
                              const Fragment& left, const Fragment& right) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kTokens == 1) {
        factor[i][0] = 1;
        factor[i][1] = decays.r[i][0];  // the second one's decay
        x[i] = scaled(__byte_perm(right[i], left[i], 0x7610), 1, factor[i][1]);
      } else {
        const bool is_left = reads<kTokens>(i, 0);
#pragma unroll
        for (int e = 0; e < 2; ++e) factor[i][e] = is_left ? decays.p[i][e] : decays.r[i][e];
        x[i] = scaled(is_left ? left[i] : right[i], factor[i][0], factor[i][1]);
      }
    }
  }

  /// The level's scores.
  template <int kTokens>
  __device__ void score_level(Square& to, const Fragment& x) const {
    const uint32_t z[4] = {transposed(x[0]), transposed(x[2]), transposed(x[1]), transposed(x[3])};
    const Fragment upper = {z[0], 0, z[2], 0}, lower = {0, z[1], 0, z[3]};
    float sums[4] = {};
    if constexpr (kTokens == 8) {
      multiply_add(to[0], lower, z[0], z[2]);
    } else {
      multiply_add(sums, upper, z[0], z[2]);
      multiply_add(sums, lower, z[1], z[3]);
#pragma unroll
      for (int e = 0; e < 4; ++e) to[e / 2][e] += has_level<kTokens>(e % 2) ? sums[e] : 0;
    }
  }

  // ---- together

  /// The scores of the block's tokens with each other, from all components.
  __device__ void finish_scores(Fragment& to, OwnScores& own) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        own.itself[i / 2][i % 2] += __shfl_xor_sync(0xffffffffu, own.itself[i / 2][i % 2], offset);
      }
    }
    if constexpr (Memory::kParts > 1) add_parts(own);
    to[1] = packed(own.lower[0][2], own.lower[0][3]);
    to[2] = transposed(to[1]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float pair[2];
      uint32_t below = 0;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const bool is_itself = in.group == 2 * in.member + e;
        pair[e] = is_itself ? own.itself[half][e] : own.lower[half][2 * half + e];
        if (in.group >= 2 * in.member + e) below |= 0xffffu << (16 * e);
      }
      const uint32_t pairs = packed(pair[0], pair[1]);
      to[3 * half] = (pairs & below) | (transposed(pairs) & ~below);
    }
  }

  __device__ static float& number(OwnScores& own, int i) {
    return i < 8 ? own.lower[i / 4][i % 4] : own.itself[(i - 8) / 2][i % 2];
  }
  /// The sum over the parts of the components, in order.
  __device__ void add_parts(OwnScores& own) const {
    float* const parts = memory.parts();
#pragma unroll
    for (int i = 0; i < kOwnScores; ++i)
      parts[(warp * kOwnScores + i) * 32 + in.lane] = number(own, i);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kOwnScores; ++i) {
      number(own, i) = 0;
#pragma unroll
      for (int other = block; other < Memory::kWarps; other += 4) {
        number(own, i) += parts[(other * kOwnScores + i) * 32 + in.lane];
      }
    }
  }

  template <int kTokens>
  __device__ void add_level(Square& lower, const RowDecays& decays, const Fragment& left,
                            const Fragment& right) const {
    float factor[4][2];
    Fragment x;
    scale_level<kTokens>(x, factor, decays, left, right);
    score_level<kTokens>(lower, x);
  }

  /// Where both axes decay: scores[0] and `itself` of the steady one, whose operands decay in
  /// place; their decays over the block.
  __device__ void decay_steady(Pair (&scores)[4], float (&itself)[2][2],
                               typename Memory::Steady& steady) const {
    OwnScores own;
#pragma unroll 1
    for (int piece = 0; piece < 4; ++piece) {
      const int column = 64 * part + 16 * piece, corner = 16 * block * kPitch + column;
      Fragment left, right;
      in.load_transposed(left, steady.left + corner, kPitch);
      in.load_transposed(right, steady.right + corner, kPitch);
      const RowDecays pairs = cuda::decays_of(true, in, steady.log + corner, kPitch, nullptr);
      RowDecays decays = pairs;
      decays.template join<2>(in.member);
      const RowDecays of_4 = decays;
      decays.template join<4>(in.member);
      const RowDecays of_8 = decays;
      decays.join_all();
      Fragment x, w;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 l = unpacked(left[i]), r = unpacked(right[i]);
        own.itself[i / 2][0] += l.x * r.x;
        own.itself[i / 2][1] += l.y * r.y;
        x[i] = scaled(left[i], decays.p[i][0], decays.p[i][1]);
      }
      if (can_divide(decays)) {
        float inverse[4][2];
        divide(w, inverse, decays, right);
        score_divided(own.lower, x, w);
      } else {
        add_level<1>(own.lower, pairs, left, right);
        add_level<2>(own.lower, pairs, left, right);
        add_level<4>(own.lower, of_4, left, right);
        add_level<8>(own.lower, of_8, left, right);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) w[i] = scaled(right[i], decays.r[i][0], decays.r[i][1]);
      __syncwarp();
      in.put_transposed(x, steady.left + corner, kPitch);
      in.put_transposed(w, steady.right + corner, kPitch);
      if (in.member == 0) {
        steady.total[block][column + in.group] = decays.total[0];
        steady.total[block][column + in.group + 8] = decays.total[1];
      }
    }
    Fragment all;
    finish_scores(all, own);
    // Symmetric: (t, s) and (s, t) are both of the one that reads.
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[0][i] = all[i % 2 * 2 + i / 2];
#pragma unroll
    for (int i = 0; i < 4; ++i) itself[i / 2][i % 2] = own.itself[i / 2][i % 2];
  }

  /// All scores of the steady axis that this block's tokens have.
  __device__ void score_steady(Pair (&scores)[4], float (&itself)[2][2],
                               typename Memory::Steady& steady) const {
    if constexpr (kBoth) {
      decay_steady(scores, itself, steady);
      __syncthreads();
    } else {
      this->score_own(scores, itself, steady);
    }
    this->score_others(scores, steady);
  }
};

}  // namespace regla::cuda
