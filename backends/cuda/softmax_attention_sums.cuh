#pragma once

#include "backends/cuda/softmax_attention_tiles.cuh"

namespace regla::cuda {

/// What a warp has seen: for each of its queries the largest score, and over 2^largest the sums of
/// weights and of weighted values. A lane's `total` is of its own columns until `finish`.
template <int kM, int kSize>
struct TileSums {
  float values[kM][kSize / 8][4] = {};
  float largest[kM][2], total[kM][2] = {};

  __device__ TileSums() {
    for (auto& rows : largest) rows[0] = rows[1] = -std::numeric_limits<float>::infinity();
  }

  /// Scores of a tile become weights over the largest score so far, and what was there shrinks.
  template <int kN>
  __device__ void weigh(float (&scores)[kM][kN][4], float scale2) {
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    float shrink[kM][2];
    bool is_higher = false;
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float most = fmaxf(largest[i][h], highest<kN>(scores[i], h));
        // Where nothing was seen yet, -infinity less anything finite.
        const float base = most == kNothing ? 0 : most * scale2;
        shrink[i][h] = fast_exp2(fmaf(largest[i][h], scale2, -base));
        is_higher |= most != largest[i][h];
        largest[i][h] = most;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; ++e) {
            scores[i][n][e] = fast_exp2(fmaf(scores[i][n][e], scale2, -base));
            sum += scores[i][n][e];
          }
        }
        total[i][h] = total[i][h] * shrink[i][h] + sum;
      }
    }
    if (__any_sync(0xffffffffu, is_higher)) scale_values(shrink);
  }

  /// The factor of each row, 1 / total, and its log-sum.
  __device__ void finish(float scale2, float (&factor)[kM][2], float (&log_sum)[kM][2]) const {
    for (int i = 0; i < kM; ++i) {
      for (int h = 0; h < 2; ++h) {
        float sum = total[i][h];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        factor[i][h] = 1 / sum;
        log_sum[i][h] = (largest[i][h] * scale2 + log2f(sum)) * kLn2;
      }
    }
  }

 private:
  /// The highest score of a row, on all lanes that have a part of it.
  template <int kN>
  static __device__ float highest(const float (&scores)[kN][4], int h) {
    float most = fmaxf(scores[0][2 * h], scores[0][2 * h + 1]);
#pragma unroll
    for (int n = 1; n < kN; ++n) {
      most = fmaxf(most, fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
  }

  __device__ void scale_values(const float (&shrink)[kM][2]) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int n = 0; n < kSize / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) values[i][n][e] *= shrink[i][e / 2];
      }
    }
  }
};

/// The outputs of a warp's queries t0 and on.
template <int kM, int kSize>
__device__ void put_outputs(const TiledAttention& in, int head, int t0,
                            const TileSums<kM, kSize>& sums, const Result<float>& o,
                            const Result<float>& log_sum) {
  const auto rows = static_cast<int>(in.steps) - t0;
  const int64_t row = in.query_row(head, t0);
  float factor[kM][2], logs[kM][2];
  sums.finish(in.scale2, factor, logs);
  put_rows(o, row * in.V, in.v_pitch(), rows, static_cast<int>(in.V), sums.values, factor);
  for (int i = 0; i < kM; ++i) {
    for (int h = 0; h < 2; ++h) {
      const int r = 16 * i + 8 * h + lane_of_warp() / 4;
      if (lane_of_warp() % 4 == 0 && r < rows) log_sum.put(row + r * in.H, logs[i][h]);
    }
  }
}

}  // namespace regla::cuda
