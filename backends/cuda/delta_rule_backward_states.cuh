#pragma once

#include "backends/cuda/delta_rule_backward_chunks.cuh"
#include "backends/cuda/delta_rule_walk.cuh"

// Where a head is several blocks of the backward pass: a walk over its chunks from the last one
// that finds the gradient of the state alone and writes it where a segment ends. `v` of the launch
// is dO.
namespace regla::cuda {

template <int K>
struct DeltaGradientColumns : DeltaWalkColumns<K, DeltaRuleBackward> {
  using Base = DeltaWalkColumns<K, DeltaRuleBackward>;
  using Base::column;
  using Base::in;
  using Base::kPieces;
  using Base::kPitch;
  using Base::kValuePitch;
  using Base::n;
  using Base::p;
  using Base::state;  // its gradient
  using typename Base::Launch;
  using typename Base::Memory;

  __device__ DeltaGradientColumns(const Launch& problem, int head, int first_column, int warp,
                                  Bf16*)
      : Base(problem, head, first_column, warp) {}

  __device__ static int chunk_of(const Launch& p, int step) { return p.chunks - 1 - step; }
  __device__ void begin() { this->load_state(this->of_state(p.d_last, n)); }
  __device__ void end() const {}

  __device__ void run(const typename Memory::Tokens& tokens, const ChunkScores& scores, int chunk) {
    if (chunk == 0) return;
    const Resets resets(tokens.scalars, in);
    Square d_u[4] = {};
    Fragment d_o[4], d_v[4];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment gradient;
      round(gradient, state[i]);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        Pair b;
        in.load_as_right_transposed(b, tokens.k + 16 * t * kPitch + 16 * i, kPitch);
        multiply_blocks(d_u[t], gradient, b);
      }
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if (resets.any()) {
        keep_columns(d_u[t], 16 * t, in, [&](int at) { return resets.writes(at); });
      }
      in.load_transposed(d_o[t], tokens.v + 16 * t * kValuePitch + column, kValuePitch);
    }
    add_read_gradients(d_u, d_o, scores, in);
    solve_reversed(d_u, d_v, scores, tokens.scalars.g, in);
    if (resets.any()) clear(state);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      add_to_state_gradient<K>(state, d_o[t], d_v[t], tokens.q, tokens.k, 16 * t, resets, in);
    }
    if (chunk % p.segment == 0) put_end(chunk / p.segment - 1);
  }

 private:
  /// The gradient of the state behind a segment.
  __device__ void put_end(int segment) {
    const int64_t segments = (p.chunks + p.segment - 1) / p.segment;
    this->store_state(this->of_state(p.d_ends, n * (segments - 1) + segment));
  }
};

}  // namespace regla::cuda
