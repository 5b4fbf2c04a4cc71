#pragma once

#include "backends/cuda/tensor_cores.cuh"

// Products of decays over tokens, without a division and without a sum of logs, so that a decay of
// 0 is exact. Blocks of 2^n tokens come in pairs. Of a pair, a token t of the second block reads
// what a token s of the first one wrote, times
//   p[t] r[s],  p[t] the product from its block's beginning up to t itself,
//               r[s] the product over what follows s in its block,
// both at most 1. Joined, the pair is a block of the next level, whose p and r are those of its
// halves, one of them times the total of the other half. The levels 1, 2, 4, 8, ... hold every pair
// of tokens once, a token and itself apart.
namespace regla::cuda {

/// Pairs of elements times a pair of factors, rounded.
__device__ inline uint32_t scaled(uint32_t pair, float first, float second) {
  const uint32_t factors = packed(first, second);
  const __nv_bfloat162 product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(pair),
                                         reinterpret_cast<const __nv_bfloat162&>(factors));
  return reinterpret_cast<const uint32_t&>(product);
}

/// first where `is_first`, else second; never by a branch, which lanes would take in turn.
__device__ inline float picked(bool is_first, float first, float second) {
  float x;
  asm("{\n"
      ".reg .pred p;\n"
      "setp.ne.u32 p, %3, 0;\n"
      "selp.f32 %0, %1, %2, p;\n"
      "}"
      : "=f"(x)
      : "f"(first), "f"(second), "r"(static_cast<uint32_t>(is_first)));
  return x;
}

/// Of scores (query, key) of 8 x 8 tokens, in a fragment: which belong to a level of blocks.
struct Levels {
  uint32_t itself, of_1, of_2, of_4;

  __device__ Levels(int group, int member) {
    itself = 0;
    of_1 = of_2 = of_4 = 0;
    for (int e = 0; e < 2; ++e) {
      const int s = 2 * member + e, apart = group ^ s;
      const uint32_t half = e == 0 ? 0x0000ffffu : 0xffff0000u;
      if (apart == 0) itself |= half;
      if (group < s) continue;
      if (apart == 1) of_1 |= half;
      if (apart == 2 || apart == 3) of_2 |= half;
      if (apart >= 4) of_4 |= half;
    }
  }
};

/// Decays of 16 rows over 16 tokens; registers as in an A fragment of rows by tokens.
struct RowDecays {
  float p[4][2], r[4][2], total[4];

  RowDecays() = default;
  /// Blocks of two tokens.
  __device__ explicit RowDecays(const float (&factor)[4][2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[i][0] = factor[i][0];
      p[i][1] = total[i] = factor[i][0] * factor[i][1];
      r[i][0] = factor[i][1];
      r[i][1] = 1;
    }
  }

  /// Blocks of `tokens` (2 or 4) become blocks of twice as many.
  template <int kTokens>
  __device__ void join(int member) {
    constexpr int kLanes = kTokens / 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float sibling = __shfl_xor_sync(0xffffffffu, total[i], kLanes);
      const bool is_second = (member & kLanes) != 0;
      const float before = picked(is_second, sibling, 1), behind = picked(is_second, 1, sibling);
      p[i][0] *= before;
      p[i][1] *= before;
      r[i][0] *= behind;
      r[i][1] *= behind;
      total[i] *= sibling;
    }
  }
  /// Blocks of 8 become one of 16.
  __device__ void join_all() {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        p[row + 2][e] *= total[row];
        r[row][e] *= total[row + 2];
      }
      total[row] *= total[row + 2];
      total[row + 2] = total[row];
    }
  }

  /// u scaled as keys of the present level; u in the same layout.
  __device__ void scale_keys(uint32_t (&to)[4], const uint32_t (&u)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = scaled(u[i], r[i][0], r[i][1]);
  }
  /// o += p x for tokens [8 tile, 8 tile + 8): both sums of a product of rows by tokens.
  __device__ void add_queries(float (&o)[4], const float (&x)[4], int tile) const {
#pragma unroll
    for (int e = 0; e < 4; ++e) o[e] += p[e / 2 + 2 * tile][e % 2] * x[e];
  }
};

/// Two blocks of 16 become one of 32.
__device__ inline void join(RowDecays& first, RowDecays& second) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      second.p[i][e] *= first.total[i];
      first.r[i][e] *= second.total[i];
    }
    first.total[i] *= second.total[i];
    second.total[i] = first.total[i];
  }
}

/// Decays of 16 tokens with 16 columns each; registers as in an A fragment of tokens by columns.
struct ColumnDecays {
  float p[4][2], r[4][2], total[4][2];

  /// Blocks of one token.
  __device__ explicit ColumnDecays(const float (&factor)[4][2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        p[i][e] = total[i][e] = factor[i][e];
        r[i][e] = 1;
      }
    }
  }

  /// Blocks of `tokens` (1, 2 or 4) become blocks of twice as many.
  template <int kTokens>
  __device__ void join(int group) {
    const bool is_second = (group & kTokens) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float sibling = __shfl_xor_sync(0xffffffffu, total[i][e], 4 * kTokens);
        p[i][e] *= picked(is_second, sibling, 1);
        r[i][e] *= picked(is_second, 1, sibling);
        total[i][e] *= sibling;
      }
    }
  }
  /// Blocks of 8 become one of 16.
  __device__ void join_all() {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        p[i + 1][e] *= total[i][e];
        r[i][e] *= total[i + 1][e];
        total[i][e] *= total[i + 1][e];
        total[i + 1][e] = total[i][e];
      }
    }
  }
};

/// Two blocks of 16 become one of 32.
__device__ inline void join(ColumnDecays& first, ColumnDecays& second) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      second.p[i][e] *= first.total[i][e];
      first.r[i][e] *= second.total[i][e];
      first.total[i][e] *= second.total[i][e];
      second.total[i][e] = first.total[i][e];
    }
  }
}

}  // namespace regla::cuda
