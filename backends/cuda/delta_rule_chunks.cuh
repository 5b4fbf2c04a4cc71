#pragma once

#include "backends/cuda/delta_rule_walk.cuh"

// The forward pass of the delta rule, a walk over the chunks. Every input is read once for each 64
// columns, and every output written once.
namespace regla::cuda {

struct DeltaRuleForward : DeltaRuleChunks {
  const float* first;  // null: zeros
  Bf16* o;
  float* last;
  Bf16* kept;  // null: not wanted
};

/// A warp's 16 columns.
template <int K>
struct DeltaColumns : DeltaWalkColumns<K, DeltaRuleForward> {
  using Base = DeltaWalkColumns<K, DeltaRuleForward>;
  using Base::column;
  using Base::in;
  using Base::j0;
  using Base::kPieces;
  using Base::kPitch;
  using Base::kValuePitch;
  using Base::n;
  using Base::p;
  using Base::state;
  using typename Base::Launch;
  using typename Base::Memory;

  Bf16* stage;

  __device__ DeltaColumns(const Launch& problem, int head, int first_column, int warp, Bf16* own)
      : Base(problem, head, first_column, warp), stage(own) {}

  __device__ static int chunk_of(const Launch&, int step) { return step; }
  __device__ bool exists() const { return j0 < p.V; }
  __device__ void begin() { this->load_state(this->of_state(p.first, n)); }
  __device__ void end() { this->store_state(this->of_state(p.last, n)); }

  __device__ void run(typename Memory::Tokens& tokens, const ChunkScores& scores, int chunk) {
    const Resets resets(tokens.scalars, in);
    Fragment before[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) round(before[i], state[i]);
    Square errors[4] = {}, o[4] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
#pragma unroll
      for (int block = 0; block < 4; ++block) {
        const int at = 16 * block * kPitch + 16 * i;
        Pair b;
        in.load_as_right_transposed(b, tokens.k + at, kPitch);
        multiply_blocks(errors[block], before[i], b);
        in.load_as_right_transposed(b, tokens.q + at, kPitch);
        multiply_blocks(o[block], before[i], b);
      }
    }
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      if (resets.any()) {
        hide_state(errors[block], block, resets);
        hide_state(o[block], block, resets);
      }
      subtract_from_values(errors[block], tokens.v + 16 * block * kValuePitch + column, kValuePitch,
                           in);
    }
    Fragment u[4];
    solve(errors, u, scores, tokens.scalars.g, in);
    if (p.kept != nullptr && exists()) keep(before, chunk);
    read_writes(o, u, scores);
    if (exists()) put_outputs(o, tokens, chunk);
    write_state(u, tokens, resets);
  }

 private:
  __device__ void hide_state(Square& sums, int block, const Resets& resets) const {
    keep_columns(sums, 16 * block, in, [&](int t) { return resets.reads(t); });
  }

  __device__ void keep(const Fragment (&before)[kPieces], int chunk) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (16 * i >= p.K) break;
      Bf16* const to = p.kept + ((int64_t{n} * p.chunks + chunk) * p.K + 16 * i) * p.V + j0;
      in.store_transposed(before[i], stage, Memory::kStagePitch, to, p.V, 16);
    }
  }

  /// o += tril(Q K^T) U
  __device__ void read_writes(Square (&o)[4], const Fragment (&u)[4],
                              const ChunkScores& scores) const {
#pragma unroll
    for (int block = 0; block < 4; ++block) {
#pragma unroll
      for (int key = 0; key <= block; ++key) {
        scores.reads.multiply_transposed(o[block], u[key], block, key, in);
      }
    }
  }

  /// S += K^T U
  __device__ void write_state(Fragment (&u)[4], const typename Memory::Tokens& tokens,
                              const Resets& resets) {
    if (resets.any()) {
      clear(state);
#pragma unroll
      for (int block = 0; block < 4; ++block) {
        keep_columns(u[block], 16 * block, in, [&](int t) { return resets.writes(t); });
      }
    }
#pragma unroll
    for (int block = 0; block < 4; ++block) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        Pair b;
        in.load_as_right(b, tokens.k + 16 * block * kPitch + 16 * i, kPitch);
        multiply_blocks(state[i], u[block], b);
      }
    }
  }

  __device__ void put_outputs(const Square (&o)[4], typename Memory::Tokens& tokens,
                              int chunk) const {
    const int64_t first = int64_t{chunk} * kChunkTokens, pitch = int64_t{p.H} * p.V;
    Bf16* const to = p.o + p.row(n, first) * p.V + j0;
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      Fragment out;
      round(out, o[block]);
      in.store_transposed(out, tokens.v + 16 * block * kValuePitch + column, kValuePitch,
                          to + 16 * block * pitch, pitch, p.tokens(chunk) - 16 * block);
    }
  }
};

}  // namespace regla::cuda
