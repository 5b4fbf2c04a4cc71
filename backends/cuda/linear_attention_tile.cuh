#pragma once

#include "backends/cuda/linear_attention_keys.cuh"
#include "backends/cuda/linear_attention_through.cuh"

// A warp's part of a tile: 16 columns of the state. Everything is computed transposed, columns by
// tokens and columns by features, so that the sums of one product are an operand of the next and
// what scales a column stays within a lane.
namespace regla::cuda {

/// c = a b, or c += a b.
__device__ inline void add_product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                   bool is_first) {
  if (is_first) {
    multiply(c, a, b0, b1);
  } else {
    multiply_add(c, a, b0, b1);
  }
}

/// The scores of a tile where no key decays.
template <int K, bool kKey>
__device__ ScoreSums scores_of(const Tile<K, kKey>& tile, const Lane& in) {
  constexpr int kPitch = Tile<K, kKey>::kPitch;
  float own[2][2][4], across[2][4];
#pragma unroll
  for (int feature = 0; feature < K; feature += 16) {
    uint32_t q[2][4], k[2][4];
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      in.load(q[block], tile.q + 16 * block * kPitch + feature, kPitch);
      in.load_as_right_transposed(k[block], tile.k + 16 * block * kPitch + feature, kPitch);
    }
#pragma unroll
    for (int keys = 0; keys < 2; ++keys) {
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        add_product(own[block][keys], q[block], k[block][2 * keys], k[block][2 * keys + 1],
                    feature == 0);
      }
      add_product(across[keys], q[1], k[0][2 * keys], k[0][2 * keys + 1], feature == 0);
    }
  }
  ScoreSums sums;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      sums.own[i][0][e] = own[i][0][e];
      sums.own[i][1][e] = own[i][0][e + 2];
      sums.own[i][2][e] = own[i][1][e + 2];
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) sums.across[i][e] = across[i][e];
  }
  return sums;
}

/// What a tile keeps until the state before it is known.
struct TileOutputs {
  float o[2][2][4];     // by blocks of 16 tokens; C fragments of columns by 8 tokens
  RowDecays decays[2];  // where values decay
};

/// kValue: columns decay, all alike where kAlike. Then the scores do, before they are rounded, and
/// nothing is scaled that is multiplied with them.
template <int K, bool kKey, bool kValue, bool kAlike>
struct TileWarp {
  using Memory = Tile<K, kKey>;
  using State = float[K / 8][4];       // C fragments of columns by features
  using Narrow = uint32_t[K / 16][4];  // the same rounded, A fragments
  static constexpr int kPitch = Memory::kPitch, kValuePitch = Memory::kValuePitch;

  const ChunkedAttention& p;
  Lane in;
  int column;  // the first one, within the block
  Levels levels;

  __device__ explicit TileWarp(const ChunkedAttention& problem)
      : p(problem), column(static_cast<int>(threadIdx.x) / 32 * 16), levels(in.group, in.member) {}

  __device__ RowDecays decays_of(const Memory& tile, int token) const {
    float factors[4][2];
    uint32_t logs[4] = {};
    if (p.log_b != nullptr) {
      in.load_transposed(logs, tile.log_b + token * kValuePitch + column, kValuePitch);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = token + 8 * half + 2 * in.member;
      const float first = p.has_scalars() ? tile.scalar_log2(t) : 0;
      const float second = p.has_scalars() ? tile.scalar_log2(t + 1) : 0;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        factors_of(factors[2 * half + row], logs[2 * half + row], first, second);
      }
    }
    return RowDecays(factors);
  }

  /// What the tile's tokens read of each other; leaves in u what is to be written to the state.
  __device__ void run(TileOutputs& out, uint32_t (&u)[2][4], const Memory& tile,
                      const ScoreSums& sums) const {
    if constexpr (kAlike) return run_alike(out, u, tile, sums);
    const Scores scores(sums);
    RowDecays(&decays)[2] = out.decays;
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      if constexpr (kValue) decays[block] = decays_of(tile, 16 * block);
      in.load_transposed(u[block], tile.u + 16 * block * kValuePitch + column, kValuePitch);
      within_block(out.o[block], scores.own[block], u[block], decays[block]);
    }
    across_blocks(out, scores, u[0]);
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      if constexpr (kValue) decays[block].scale_keys(u[block], u[block]);
    }
  }

  /// The same where all columns decay alike.
  __device__ void run_alike(TileOutputs& out, uint32_t (&u)[2][4], const Memory& tile,
                            ScoreSums sums) const {
    const TileThrough through(tile, in);
    through.fade(sums, in);
    const Scores scores(sums);
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      out.decays[block] = through.of_block(block, in);
      in.load_transposed(u[block], tile.u + 16 * block * kValuePitch + column, kValuePitch);
      read_written(out.o[block], scores.own[block], u[block]);
    }
    read_across(out.o[1], scores, u[0]);
#pragma unroll
    for (int block = 0; block < 2; ++block) out.decays[block].scale_keys(u[block], u[block]);
  }

  /// What a block reads of itself, and the second one of the first, where no column decays or the
  /// scores have.
  __device__ static void read_written(float (&o)[2][4], const uint32_t (&scores)[3],
                                      const uint32_t (&u)[4]) {
    multiply(o[0], u[0], u[1], scores[0]);
    multiply(o[1], u, scores[1], scores[2]);
  }
  __device__ static void read_across(float (&o)[2][4], const Scores& scores,
                                     const uint32_t (&u)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      multiply_add(o[half], u, scores.across[half][0], scores.across[half][1]);
    }
  }

  __device__ void within_block(float (&o)[2][4], const uint32_t (&scores)[3],
                               const uint32_t (&u)[4], RowDecays& decays) const {
    if constexpr (!kValue) {
      read_written(o, scores, u);
      return;
    }
    // Of two neighbours the first one's r is the second one's p: one product for these and for
    // what a token reads of itself.
    uint32_t w[4];
    decays.scale_keys(w, u);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t own = scores[2 * half];
      const uint32_t both[4] = {w[2 * half], w[2 * half + 1], u[2 * half], u[2 * half + 1]};
      multiply(o[half], both, own & levels.of_1, own & levels.itself);
      float x[4];
      multiply(x, w[2 * half], w[2 * half + 1], own & levels.of_2);
      decays.add_queries(o[half], x, half);
    }
    decays.template join<2>(in.member);
    decays.scale_keys(w, u);
    float x[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      multiply(x, w[2 * half], w[2 * half + 1], scores[2 * half] & levels.of_4);
      decays.add_queries(o[half], x, half);
    }
    decays.template join<4>(in.member);
    decays.scale_keys(w, u);
    multiply(x, w[0], w[1], scores[1]);
    decays.add_queries(o[1], x, 1);
    decays.join_all();
  }

  /// What the second block reads of the first one.
  __device__ static void across_blocks(TileOutputs& out, const Scores& scores,
                                       const uint32_t (&u)[4]) {
    RowDecays(&decays)[2] = out.decays;
    if constexpr (kValue) {
      uint32_t w[4];
      decays[0].scale_keys(w, u);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x[4];
        multiply(x, w, scores.across[half][0], scores.across[half][1]);
        decays[1].add_queries(out.o[1][half], x, half);
      }
      join(decays[0], decays[1]);
    } else {
      read_across(out.o[1], scores, u);
    }
  }

  /// S += w k^T over the tile, or S = w k^T.
  __device__ void write_state(State& state, const uint32_t (&w)[2][4], const Memory& tile,
                              bool is_first) const {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
#pragma unroll
      for (int i = 0; i < K / 16; ++i) {
        uint32_t right[4];
        in.load_as_right(right, tile.k + 16 * block * kPitch + 16 * i, kPitch);
        add_product(state[2 * i], w[block], right[0], right[1], is_first && block == 0);
        add_product(state[2 * i + 1], w[block], right[2], right[3], is_first && block == 0);
      }
    }
  }

  /// o += p S^T q, S the state before the tile.
  __device__ void read_state(TileOutputs& out, const Narrow& state, const Memory& tile) const {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      float x[2][4];
      float(&sums)[2][4] = kValue ? x : out.o[block];
#pragma unroll
      for (int i = 0; i < K / 16; ++i) {
        uint32_t q[4];
        in.load_as_right_transposed(q, tile.q + 16 * block * kPitch + 16 * i, kPitch);
        add_product(sums[0], state[i], q[0], q[1], kValue && i == 0);
        add_product(sums[1], state[i], q[2], q[3], kValue && i == 0);
      }
      if constexpr (kValue) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          out.decays[block].add_queries(out.o[block][half], x[half], half);
        }
      }
    }
  }
};

}  // namespace regla::cuda
