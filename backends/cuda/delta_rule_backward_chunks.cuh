#pragma once

#include "backends/cuda/delta_rule_chunk.cuh"

// The backward pass of the delta rule, chunk by chunk of 64 tokens from the last one (docs/math.md,
// "The delta rule"). With R and U computed again from the state S before the chunk, and dS the
// gradient of the state behind it:
//
//   dU = tril(Q K^T)^T dO + K dS       D = (I + G P)^{-T} dU      dV = G D      d_g = sum_j D R
//   dW = tril(dO U^T)                  dP = -stril(dV U^T)
//   dQ = dO S^T + dW K                 dK = U dS^T - dV S^T + dW^T Q + (dP + dP^T) K
//   dS <- dS + Q^T dO - K^T dV
//
// - A block has a head, or a segment of it, and walks its chunks; there is a warp for every 16
// columns of values.
// - In turn: the scores of the chunk, by blocks of 16 x 16; R, U, D and dV, by columns, transposed;
//   dW and dP, by blocks, in place of the scores, and dS, by columns, in registers; dQ and dK, by
//   16 tokens and 64 features. Only between these do warps wait for each other.
// - Where heads alone are too few blocks, a head is cut into segments, and a walk of its own
//   (delta_rule_backward_states.cuh) finds dS behind each beforehand.
// - The state before a chunk is the one that the forward pass kept.
// - Every input is read once and every output written once.
namespace regla::cuda {

struct DeltaRuleBackward : DeltaRuleChunks {
  const Bf16 *d_o, *kept;
  const float* d_last;  // null: zeros
  float* d_ends;        // [B H, segments - 1, K, V]: of the states behind segments but the last one
  int segment;          // chunks of a segment
  Result<float> d_q, d_k, d_v, d_g, d_first;
};

/// For up to N features and N columns; inputs of a chunk at a time, or of two.
template <int N, int kBuffers>
struct DeltaBackwardMemory {
  static constexpr int kPitch = N + 8, kWarps = N / 16, kStagePitch = 72;

  struct Inputs {
    Bf16 q[kChunkTokens * kPitch], k[kChunkTokens * kPitch], d_o[kChunkTokens * kPitch];
    Bf16 v[kChunkTokens * kPitch];  // and then U
    Bf16 state[N * kPitch];         // [K, V]
    ChunkScalars scalars;
  };
  Inputs inputs[kBuffers];
  Bf16 d_v[kChunkTokens * kPitch];
  Bf16 d_state[N * kPitch];  // [V, K]
  ChunkScores scores;        // and then dW and dP
  float d_g[kWarps][kChunkTokens];
  union {
    float numbers[16 * kInversePitch];
    Bf16 stage[16 * kStagePitch];
  } own[kWarps];
};

template <int N, int kBuffers>
struct DeltaBackwardWarp {
  using Memory = DeltaBackwardMemory<N, kBuffers>;
  using Inputs = typename Memory::Inputs;
  static constexpr int kPitch = Memory::kPitch, kPieces = N / 16, kThreads = 2 * N;

  const DeltaRuleBackward& p;
  Memory& memory;
  Lane in;
  int n, warp, column, block, feature;  // its columns, its 16 tokens and its 64 features
  StateColumns<N> d_state;

  __device__ DeltaBackwardWarp(const DeltaRuleBackward& problem, Memory& shared, int head)
      : p(problem), memory(shared), n(head) {
    warp = static_cast<int>(threadIdx.x) / 32;
    column = 16 * warp;
    block = warp % 4;
    feature = warp / 4 * 64;
  }

  __device__ int64_t place(int i, int j) const { return (int64_t{n} * p.K + i) * p.V + j; }
  /// `gradient`: of the state behind the last chunk, or null.
  __device__ void begin(const float* gradient) {
    load_columns<N>(d_state, gradient, p, column, in);
  }
  __device__ void end() {
    if (!p.d_first) return;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int feature_ = e / 4 * 8 + 2 * in.member + e % 2;
        memory.own[warp].numbers[feature_ * kInversePitch + in.group + e % 4 / 2 * 8] =
            d_state[i][e / 4][e % 4];
      }
      put_block(p.d_first, place(16 * i, column), p.V, p.K - 16 * i, p.V - column);
    }
  }

  __device__ void load(Inputs& to, int chunk) const {
    const int64_t row = p.row(n, int64_t{chunk} * kChunkTokens);
    const int64_t keys = row * p.K, values = row * p.V;
    const int key_stride = p.H * p.K, value_stride = p.H * p.V;
    const int tokens = p.tokens(chunk), thread = static_cast<int>(threadIdx.x);
    copy_rows<N, kChunkTokens, kThreads>(to.q, p.q + keys, key_stride, p.K, tokens, thread);
    copy_rows<N, kChunkTokens, kThreads>(to.k, p.k + keys, key_stride, p.K, tokens, thread);
    copy_rows<N, kChunkTokens, kThreads>(to.v, p.v + values, value_stride, p.V, tokens, thread);
    copy_rows<N, kChunkTokens, kThreads>(to.d_o, p.d_o + values, value_stride, p.V, tokens, thread);
    const Bf16* const state = p.kept + (int64_t{n} * p.chunks + chunk) * p.K * p.V;
    copy_rows<N, N, kThreads>(to.state, state, p.V, p.V, p.K, thread);
    if (thread < kChunkTokens) to.scalars.load(p, n, chunk, thread);
    end_group();
  }

  /// For all warps, rounded.
  __device__ void share_state_gradient() const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      put_square(d_state[i], memory.d_state + column * kPitch + 16 * i, kPitch, 1, in);
    }
  }

  /// U in place of the values, dV, and this warp's part of d_g.
  __device__ void solve_columns(Inputs& inputs, const Resets& resets, int chunk) const {
    const ChunkScores& scores = memory.scores;
    Square errors[4] = {}, d_u[4] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment state, gradient;
      in.load_transposed(state, inputs.state + 16 * i * kPitch + column, kPitch);
      round(gradient, d_state[i]);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        Pair b;
        in.load_as_right_transposed(b, inputs.k + 16 * t * kPitch + 16 * i, kPitch);
        multiply_blocks(errors[t], state, b);
        multiply_blocks(d_u[t], gradient, b);
      }
    }
    Fragment u[4], d_v[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if (resets.any()) {
        keep_columns(errors[t], 16 * t, in, [&](int at) { return resets.reads(at); });
        keep_columns(d_u[t], 16 * t, in, [&](int at) { return resets.writes(at); });
      }
      subtract_from_values(errors[t], inputs.v + 16 * t * kPitch + column, kPitch, in);
      in.load_transposed(d_v[t], inputs.d_o + 16 * t * kPitch + column, kPitch);
    }
    solve(errors, u, scores, inputs.scalars.g, in);
    __syncwarp();
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      in.put_transposed(u[t], inputs.v + 16 * t * kPitch + column, kPitch);
    }
    add_read_gradients(d_u, d_v, scores, in);  // d_v is the gradient of the outputs still
    solve_reversed(d_u, d_v, scores, inputs.scalars.g, in);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      in.put_transposed(d_v[t], memory.d_v + 16 * t * kPitch + column, kPitch);
      share_d_g(d_u[t], errors[t], 16 * t);
    }
    if (p.d_v && p.d_v.plain() == nullptr) put_d_v(d_u, inputs.scalars.g, chunk);
  }

  __device__ void share_d_g(const Square& d_u, const Square& errors, int token) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float sum = d_u[half][e] * errors[half][e] + d_u[half][2 + e] * errors[half][2 + e];
        for (int offset = 4; offset < 32; offset *= 2) {
          sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        }
        if (in.group == 0) memory.d_g[warp][token + 8 * half + 2 * in.member + e] = sum;
      }
    }
  }

  /// dV where its sink does not take it as it is rounded.
  __device__ void put_d_v(const Square (&d_u)[4], const float* g, int chunk) const {
    float* const numbers = memory.own[warp].numbers;
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int token = e / 4 * 8 + 2 * in.member + e % 2;
        numbers[token * kInversePitch + in.group + e % 4 / 2 * 8] =
            g[16 * t + token] * d_u[t][e / 4][e % 4];
      }
      put_block(p.d_v, token_place(chunk, 16 * t, p.V) + column, int64_t{p.H} * p.V,
                p.tokens(chunk) - 16 * t, p.V - column);
    }
  }

  /// The element where token t of a chunk begins in a tensor [B, T, H, size].
  __device__ int64_t token_place(int chunk, int t, int size) const {
    return p.row(n, int64_t{chunk} * kChunkTokens + t) * size;
  }
  /// 16 x 16 of this warp's numbers, those rows and columns that are there, into a tensor.
  __device__ void put_block(const Result<float>& to, int64_t first, int64_t stride, int rows,
                            int columns) const {
    __syncwarp();
#pragma unroll 1
    for (int row = in.lane / 4; row < 16; row += 8) {
      const int at = 4 * in.member;
      const float4 x =
          *reinterpret_cast<const float4*>(memory.own[warp].numbers + row * kInversePitch + at);
      const float four[4] = {x.x, x.y, x.z, x.w};
      if (row < rows && at < columns) to.put(first + row * stride + at, four);
    }
    __syncwarp();
  }

  /// dW and dP in place of the scores.
  __device__ void find_score_gradients(const Inputs& inputs, const Resets& resets) const {
    each_score<N, Memory::kWarps>(warp, inputs.d_o, memory.d_v, inputs.v, in,
                                  [&](const ScoreBlock& block, bool, Square& sums) {
                                    keep_seen(sums, block, resets, in);
                                    memory.scores.put(block, sums, in);
                                  });
  }

  /// dS <- dS + Q^T dO - K^T dV
  __device__ void advance_state_gradient(const Inputs& inputs, const Resets& resets) {
    if (resets.any()) clear(d_state);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      Fragment d_o, d_v;
      in.load_transposed(d_o, inputs.d_o + 16 * t * kPitch + column, kPitch);
      in.load_transposed(d_v, memory.d_v + 16 * t * kPitch + column, kPitch);
      add_to_state_gradient<N>(d_state, d_o, d_v, inputs.q, inputs.k, 16 * t, resets, in);
    }
  }

  using Rows = Square[4];  // 16 tokens, 64 features

  /// += a times 16 tokens of q or k.
  __device__ void add_tokens(Rows& to, const Fragment& a, const Bf16* tokens) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Pair b;
      in.load_as_right(b, tokens + feature + 16 * i, kPitch);
      multiply_blocks(to[i], a, b);
    }
  }

  /// dQ = dO S^T + dW K
  __device__ void find_d_q(Rows& d_q, const Inputs& inputs, const Resets& resets) const {
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      Fragment a;
      in.load(a, inputs.d_o + 16 * block * kPitch + 16 * j, kPitch);
      if (resets.any()) keep_rows(a, 16 * block, in, [&](int t) { return resets.reads(t); });
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Pair b;
        in.load_as_right_transposed(b, inputs.state + (feature + 16 * i) * kPitch + 16 * j, kPitch);
        multiply_blocks(d_q[i], a, b);
      }
    }
#pragma unroll 1
    for (int key = 0; key <= block; ++key) {
      Fragment a;
      const ScoreTriangle& d_w = memory.scores.reads;
      in.load(a, d_w.at(block, key), kScorePitch);
      add_tokens(d_q, a, inputs.k + 16 * key * kPitch);
      in.load(a, d_w.rest(block, key), ScoreTriangle::rest_pitch(block, key));
      add_tokens(d_q, a, inputs.k + 16 * key * kPitch);
    }
  }

  /// dK = U dS^T - dV S^T + dW^T Q + (dP + dP^T) K
  __device__ void find_d_k(Rows& d_k, const Inputs& inputs, const Resets& resets) const {
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      Fragment u, d_v;
      in.load(u, inputs.v + 16 * block * kPitch + 16 * j, kPitch);
      in.load(d_v, memory.d_v + 16 * block * kPitch + 16 * j, kPitch);
      negate(d_v);
      if (resets.any()) {
        keep_rows(u, 16 * block, in, [&](int t) { return resets.writes(t); });
        keep_rows(d_v, 16 * block, in, [&](int t) { return resets.reads(t); });
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Pair b;
        in.load_as_right(b, memory.d_state + 16 * j * kPitch + feature + 16 * i, kPitch);
        multiply_blocks(d_k[i], u, b);
        in.load_as_right_transposed(b, inputs.state + (feature + 16 * i) * kPitch + 16 * j, kPitch);
        multiply_blocks(d_k[i], d_v, b);
      }
    }
    const ScoreTriangle &d_w = memory.scores.reads, &d_p = memory.scores.writes;
    Fragment a;
#pragma unroll 1
    for (int query = block; query < 4; ++query) {
      in.load_transposed(a, d_w.at(query, block), kScorePitch);
      add_tokens(d_k, a, inputs.q + 16 * query * kPitch);
      in.load_transposed(a, d_p.at(query, block), kScorePitch);
      add_tokens(d_k, a, inputs.k + 16 * query * kPitch);
    }
#pragma unroll 1
    for (int key = 0; key <= block; ++key) {
      in.load(a, d_p.at(block, key), kScorePitch);
      add_tokens(d_k, a, inputs.k + 16 * key * kPitch);
    }
  }

  /// 16 rows of up to 64 elements, in pieces of 16 bytes, from shared memory to a tensor.
  __device__ void copy_out(Bf16* to, const Bf16* from, int pitch, int size, int chunk) const {
    const int at = in.lane % 8 * 8, rows = p.tokens(chunk) - 16 * block;
    to += token_place(chunk, 16 * block, size) + feature + at;
#pragma unroll
    for (int row = in.lane / 8; row < 16; row += 4) {
      if (row >= rows || feature + at >= size) break;
      *reinterpret_cast<uint4*>(to + int64_t{row} * p.H * size) =
          *reinterpret_cast<const uint4*>(from + row * pitch + at);
    }
  }

  __device__ void put_rows(const Rows& rows, const Result<float>& to, int chunk) const {
    if (Bf16* const plain = to.plain()) {
      Bf16* const stage = memory.own[warp].stage;
#pragma unroll
      for (int i = 0; i < 4; ++i) put_square(rows[i], stage + 16 * i, Memory::kStagePitch, 1, in);
      __syncwarp();
      copy_out(plain, stage, Memory::kStagePitch, p.K, chunk);
      __syncwarp();
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      put_numbers(rows[i]);
      const int at = feature + 16 * i;
      put_block(to, token_place(chunk, 16 * block, p.K) + at, int64_t{p.H} * p.K,
                p.tokens(chunk) - 16 * block, p.K - at);
    }
  }
  __device__ void put_numbers(const Square& from) const {
#pragma unroll
    for (int e = 0; e < 8; e += 2) {
      *reinterpret_cast<float2*>(
          memory.own[warp].numbers + (in.group + e % 4 / 2 * 8) * kInversePitch + e / 4 * 8 +
          2 * in.member) = make_float2(from[e / 4][e % 4], from[e / 4][e % 4 + 1]);
    }
  }

  /// All that is left of a chunk's gradients.
  __device__ void put_gradients(const Inputs& inputs, const Resets& resets, int chunk) const {
    if (p.d_q) {
      Rows d_q = {};
      find_d_q(d_q, inputs, resets);
      put_rows(d_q, p.d_q, chunk);
    }
    if (p.d_k) {
      Rows d_k = {};
      find_d_k(d_k, inputs, resets);
      put_rows(d_k, p.d_k, chunk);
    }
    if (p.d_v && p.d_v.plain() != nullptr) {
      copy_out(p.d_v.plain(), memory.d_v + 16 * block * kPitch + feature, kPitch, p.V, chunk);
    }
    const int t = static_cast<int>(threadIdx.x);
    if (p.d_g && t < p.tokens(chunk)) {
      float sum = 0;
      for (const auto& part : memory.d_g) sum += part[t];
      p.d_g.put(p.row(n, int64_t{chunk} * kChunkTokens + t), sum);
    }
  }
};

template <int N, int kBuffers>
__global__ __launch_bounds__(2 * N, N == 64 && kBuffers == 1
                                        ? 2
                                        : 1) void reverse_delta_chunks(const DeltaRuleBackward p) {
  using Memory = DeltaBackwardMemory<N, kBuffers>;
  extern __shared__ __align__(16) unsigned char bytes[];
  Memory& memory = *reinterpret_cast<Memory*>(bytes);
  DeltaBackwardWarp<N, kBuffers> warp(p, memory, static_cast<int>(blockIdx.x));
  const auto inputs_of = [&](int chunk) -> auto& { return memory.inputs[chunk % kBuffers]; };
  const int64_t n = blockIdx.x, size = int64_t{p.K} * p.V, segment = blockIdx.y;
  const int begin = static_cast<int>(segment) * p.segment, end = min(p.chunks, begin + p.segment);

  if (p.reset == nullptr && threadIdx.x < kChunkTokens) {
    for (auto& inputs : memory.inputs) inputs.scalars.reset[threadIdx.x] = 0;
  }
  if (end > begin) warp.load(inputs_of(end - 1), end - 1);
  if (end < p.chunks) {
    warp.begin(p.d_ends + (n * (gridDim.y - 1) + segment) * size);
  } else {
    warp.begin(p.d_last == nullptr ? nullptr : p.d_last + n * size);
  }
  for (int chunk = end - 1; chunk >= begin; --chunk) {
    auto& inputs = inputs_of(chunk);
    const bool has_next = chunk > begin;
    await_groups<0>();
    __syncthreads();
    if (kBuffers > 1 && has_next) warp.load(inputs_of(chunk - 1), chunk - 1);
    const Resets resets(inputs.scalars, warp.in);
    find_scores<N, Memory::kWarps>(memory.scores, inputs.q, inputs.k, inputs.scalars,
                                   memory.own[warp.warp].numbers, warp.warp, warp.in);
    warp.share_state_gradient();
    __syncthreads();
    warp.solve_columns(inputs, resets, chunk);
    __syncthreads();
    warp.find_score_gradients(inputs, resets);
    warp.advance_state_gradient(inputs, resets);
    __syncthreads();
    warp.put_gradients(inputs, resets, chunk);
    if (kBuffers == 1 && has_next) {
      __syncthreads();
      warp.load(inputs, chunk - 1);
    }
  }
  if (segment == 0) warp.end();
}

}  // namespace regla::cuda
