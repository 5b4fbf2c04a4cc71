#pragma once

#include "backends/cuda/linear_attention_backward_rows.cuh"

namespace regla::cuda {

/// The scores of a block's 16 tokens with each other: those of blocks of 1, 2, 4 and 8 tokens, and
/// of tokens with themselves.
struct OwnScores {
  float of_1[4] = {}, of_2[4] = {}, of_4[4] = {}, of_8[4] = {};  // of either half, or across
  float itself[2][2] = {};                                       // [tile][token of a pair]
};

/// The scores of a warp's 16 tokens with each other where components decay, level by level.
template <int N, bool kTurned, bool kBoth, bool kAlike>
struct BackwardScores : BackwardRows<N, kTurned, kBoth, kAlike> {
  using Base = BackwardRows<N, kTurned, kBoth, kAlike>;
  using Base::Base;
  using Base::block;
  using Base::in;
  using Base::kPitch;
  using Base::memory;
  using Base::part;
  using Base::warp;
  using typename Base::Memory;
  using typename Base::Rows;

  // Of each pair of blocks of kTokens, the second one's tokens read.

  /// Whether this lane's tokens of a level of 2 or 4 read.
  template <int kTokens>
  __device__ bool lane_reads() const {
    return kTokens < 8 && (in.member & (kTokens / 2)) != 0;
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
        const bool reads = kTokens == 8 ? i >= 2 : lane_reads<kTokens>();
#pragma unroll
        for (int e = 0; e < 2; ++e) factor[i][e] = reads ? decays.p[i][e] : decays.r[i][e];
        x[i] = scaled(reads ? left[i] : right[i], factor[i][0], factor[i][1]);
      }
    }
  }

  /// The level's scores.
  template <int kTokens>
  __device__ static void score_level(float (&own)[4], const Fragment& x) {
    const uint32_t z[4] = {transposed(x[0]), transposed(x[2]), transposed(x[1]), transposed(x[3])};
    const Fragment upper = {z[0], 0, z[2], 0}, lower = {0, z[1], 0, z[3]};
    constexpr int kOther = kTokens < 8 ? 0 : 1;
    multiply_add(own, upper, z[kOther], z[2 + kOther]);
    multiply_add(own, lower, z[1 - kOther], z[3 - kOther]);
  }

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
    float halves[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int apart = in.group ^ (2 * in.member + e % 2);
      const float pair = apart == 0 ? own.itself[e / 2][e % 2] : own.of_1[e];
      halves[e] = apart < 2 ? pair : apart < 4 ? own.of_2[e] : own.of_4[e];
    }
    Square all = {{halves[0], halves[1], own.of_8[2], own.of_8[3]},
                  {own.of_8[0], own.of_8[1], halves[2], halves[3]}};
    if constexpr (kAlike) this->through.fade(all, block, block, in);
    round(to, all);
  }

  __device__ static float& number(OwnScores& own, int i) {
    return i < 4    ? own.of_1[i]
           : i < 8  ? own.of_2[i - 4]
           : i < 12 ? own.of_4[i - 8]
           : i < 16 ? own.of_8[i - 12]
                    : own.itself[(i - 16) / 2][i % 2];
  }
  /// The sum over the parts of the components, in order.
  __device__ void add_parts(OwnScores& own) const {
    float* const parts = memory.parts();
#pragma unroll
    for (int i = 0; i < 20; ++i) parts[(warp * 20 + i) * 32 + in.lane] = number(own, i);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 20; ++i) {
      number(own, i) = 0;
#pragma unroll
      for (int other = block; other < Memory::kWarps; other += 4) {
        number(own, i) += parts[(other * 20 + i) * 32 + in.lane];
      }
    }
  }

  template <int kTokens>
  __device__ void add_level(float (&own)[4], const RowDecays& decays, const Fragment& left,
                            const Fragment& right) const {
    float factor[4][2];
    Fragment x;
    scale_level<kTokens>(x, factor, decays, left, right);
    score_level<kTokens>(own, x);
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
      RowDecays decays = cuda::decays_of(true, in, steady.log + corner, kPitch, nullptr);
      add_level<1>(own.of_1, decays, left, right);
      add_level<2>(own.of_2, decays, left, right);
      decays.template join<2>(in.member);
      add_level<4>(own.of_4, decays, left, right);
      decays.template join<4>(in.member);
      add_level<8>(own.of_8, decays, left, right);
      decays.join_all();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 l = unpacked(left[i]), r = unpacked(right[i]);
        own.itself[i / 2][0] += l.x * r.x;
        own.itself[i / 2][1] += l.y * r.y;
        left[i] = scaled(left[i], decays.p[i][0], decays.p[i][1]);
        right[i] = scaled(right[i], decays.r[i][0], decays.r[i][1]);
      }
      __syncwarp();
      in.put_transposed(left, steady.left + corner, kPitch);
      in.put_transposed(right, steady.right + corner, kPitch);
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

  /// All scores of the steady axis that this block's tokens have, and this block's rows of it.
  __device__ void score_steady(Pair (&scores)[4], float (&itself)[2][2], Rows& left, Rows& right,
                               typename Memory::Steady& steady) const {
    if constexpr (kBoth) {
      decay_steady(scores, itself, steady);
      __syncthreads();
      this->load_rows(left, right, steady);
    } else {
      this->load_rows(left, right, steady);
      this->score_own(scores, itself, left, right, steady);
    }
    this->score_others(scores, steady);
  }
};

}  // namespace regla::cuda
