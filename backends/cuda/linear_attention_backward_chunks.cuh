#pragma once

#include "backends/cuda/linear_attention_backward_warp.cuh"

// The backward pass of the recurrence, chunk by chunk of 64 tokens from the last one:
//
//   dS_t-1 = a_t b_t s_t (dS_t + q_t d_o_t^T)      d_q = S d_o   d_k = dS u   d_u = dS^T k
//
// - The axis that decays is called fading, the other one steady; scalars and resets fade with the
//   former. Under an exchange of the axes q and d_o, k and u, d_q and o change places, so one
//   kernel serves decays of keys and of values.
// - A block has a head, or a segment of it, and walks its chunks backward. A warp has 16 tokens of
//   the chunk. Nothing of a chunk is done in the order of its tokens but d_log.
// - Of the fading axis a warp takes 16 components at a time, transposed: rows are components. Its
//   tokens meet each other level by level (decays.cuh). One scaled operand of a level, the
//   gradients of those who read beside the values of those who were read, serves o, d_u and the
//   scores d_o u.
// - Tokens of other warps, and the states at both ends of the chunk, are met by way of shared
//   memory, where each warp put its own decayed from its beginning and to its end.
// - d_q and d_k follow from the scores; each warp has its own 16 tokens, so that nothing is summed
//   across warps but the terms of d_log, in order.
// - The state before a chunk is the one that the forward pass kept; o is computed again. The
//   gradient of the state stays in registers, 16 rows for each warp.
// - d_log_t is the sum over t' >= t of o d_o - u d_u, both without what t' gave itself, which
//   cancels, plus S dS behind the chunk. A token that nothing passes cuts the sum. All of its terms
//   are taken of operands as they were rounded for the others, so that what tokens behind t give
//   each other and the state cancels.
// - Every input is read once, by copies a chunk ahead, and every output written once.
// - Where both axes decay, all of this runs twice: for gradients on the axis of values, whose
//   scores on the axis of keys are found level by level as well, on operands that decay in place;
//   and with the axes exchanged for those on the axis of keys. Little is then left of a token in
//   the next one, and d_log small beside the terms it is a sum of: what meets dS behind the chunk
//   is summed from the chunk's beginning to t instead.
// - Where nothing but scalars decays, the scores do, before they are rounded, and no operand is
//   scaled.
namespace regla::cuda {

/// The gradient of the state behind a chunk.
template <int N, bool kTurned, bool kBoth, bool kAlike>
struct StateGradient {
  using Memory = BackwardMemory<N, kBoth>;
  static constexpr int kPitch = Memory::kPitch, kPieces = N / 16;

  const ChunkedBackward& p;
  Memory& memory;
  Lane in;
  StateRows<N> rows;

  __device__ StateGradient(const ChunkedBackward& problem, Memory& shared)
      : p(problem), memory(shared) {}

  /// Behind the last chunk of a segment.
  __device__ void begin(const float* gradient) {
    if (gradient != nullptr) {
      rows.template each<kTurned>(p, [&](float& x, int at, int) { x = gradient[at]; });
    }
    share();
  }

  /// Over a chunk: d <- decay d + sum_t (queries from the chunk's beginning), to the gradient
  /// behind the chunk before.
  __device__ void advance(const typename Memory::Steady& steady, const Through& through) {
    const int first = rows.first;
    if constexpr (kAlike) {
      const float total = through.from_before(kChunkTokens - 1);
      rows.decay(total, total);
    }
#pragma unroll 1
    for (int block = 3; block >= 0; --block) {
      if constexpr (!kAlike) {
        const float* const total = memory.total[block] + first + in.group;
        rows.decay(total[0], total[8]);
      }
      if constexpr (kBoth) rows.decay_columns(steady.total[block]);
      Fragment a;
      in.load(a, memory.queries + first * Memory::kTokenPitch + 16 * block, Memory::kTokenPitch);
      if constexpr (kAlike) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int t = 16 * block + 8 * half + 2 * in.member;
          const float factors[2] = {through.from_before(t), through.from_before(t + 1)};
#pragma unroll
          for (int row = 0; row < 2; ++row) {
            const float2 pair = unpacked(a[2 * half + row]);
            a[2 * half + row] = packed(pair.x * factors[0], pair.y * factors[1]);
          }
        }
      }
      rows.add(a, steady.left + 16 * block * kPitch, kPitch);
    }
    share();
  }

  /// The boundary's term of d_log, of the state before the chunk alone.
  __device__ void find_boundary(const typename Memory::Steady& steady,
                                const Through& through) const {
    float sums[2] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment s;
      load_state(s, steady, i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float2 total = {1, 1};
        if constexpr (kBoth) {
#pragma unroll
          for (const auto& of_block : steady.total) {
            const float2 pair =
                *reinterpret_cast<const float2*>(of_block + 16 * i + 8 * half + 2 * in.member);
            total.x *= pair.x;
            total.y *= pair.y;
          }
        }
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const float2 pair = unpacked(s[2 * half + row]);
          const float* const d = rows.d[i][half] + row * 2;
          sums[row] += pair.x * total.x * d[0] + pair.y * total.y * d[1];
        }
      }
    }
    const float alike = kAlike ? through.from_before(kChunkTokens - 1) : 1;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int at = rows.first + in.group + 8 * row;
      sums[row] *= alike;
      if constexpr (!kAlike) {
        for (const auto& of_block : memory.total) sums[row] *= of_block[at];
      }
      sums[row] += __shfl_xor_sync(0xffffffffu, sums[row], 1);
      sums[row] += __shfl_xor_sync(0xffffffffu, sums[row], 2);
      if (in.member == 0) memory.boundary[at] = sums[row];
    }
  }

 private:
  /// This warp's rows of the state before the chunk, 16 columns.
  __device__ void load_state(Fragment& to, const typename Memory::Steady& steady, int i) const {
    if constexpr (kTurned) {
      in.load(to, steady.state + rows.first * kPitch + 16 * i, kPitch);
    } else {
      in.load_transposed(to, steady.state + 16 * i * kPitch + rows.first, kPitch);
    }
  }

  /// For all warps: the gradient, rounded.
  __device__ void share() const {
    const int first = rows.first + in.group;
    Bf16* const place = memory.d_state + first * kPitch + 2 * in.member;
#pragma unroll
    for (int i = 0; i < 2 * kPieces; ++i) {
      const float(&c)[4] = rows.d[i / 2][i % 2];
      *reinterpret_cast<uint32_t*>(place + 8 * i) = packed(c[0], c[1]);
      *reinterpret_cast<uint32_t*>(place + 8 * kPitch + 8 * i) = packed(c[2], c[3]);
    }
  }
};

/// The tokens of a chunk that nothing passes, a bit for each, on all lanes.
__device__ inline uint64_t cuts_of(const float* scalars, int lane) {
  return uint64_t{__ballot_sync(0xffffffffu, scalars[32 + lane] == -INFINITY)} << 32 |
         __ballot_sync(0xffffffffu, scalars[lane] == -INFINITY);
}

template <int N, bool kTurned, bool kBoth, bool kAlike>
__global__ __launch_bounds__(2 * N, N == 64 ? 2 : 1) void reverse_chunks(const ChunkedBackward p) {
  using Memory = BackwardMemory<N, kBoth>;
  using Warp = BackwardWarp<N, kTurned, kBoth, kAlike>;
  extern __shared__ __align__(16) unsigned char bytes[];
  Memory& memory = *reinterpret_cast<Memory*>(bytes);
  const int64_t n = blockIdx.x, size = int64_t{p.fading.size} * p.steady.size;
  const int begin = static_cast<int>(blockIdx.y) * p.segment;
  const int end = min(p.chunks, begin + p.segment);
  const Head head(static_cast<int>(blockIdx.x), p.H, p.steps);
  Warp warp(p, memory, head);
  const bool has_scalars = p.log_s != nullptr || p.reset != nullptr;
  constexpr bool kAhead = Memory::kBuffers > 1;
  const auto steady_of = [&](int chunk) ->
      typename Memory::Steady& { return memory.steady[chunk % Memory::kBuffers]; };

  warp.load_steady(steady_of(end - 1), end - 1);
  warp.load_own(memory.left, p.fading.left, end - 1);
  warp.load_own(memory.right, p.fading.right, end - 1);
  warp.load_log(end - 1);
  end_group();
  if (threadIdx.x < kChunkTokens) {
    memory.scalar[threadIdx.x] =
        scalar_log2(p, head, (end - 1) * kChunkTokens + static_cast<int>(threadIdx.x));
  }
  StateGradient<N, kTurned, kBoth, kAlike> gradient(p, memory);
  const float* const behind = end < p.chunks
                                  ? p.d_ends + (n * (gridDim.y - 1) + blockIdx.y) * size
                                  : (p.d_last == nullptr ? nullptr : p.d_last + n * size);
  gradient.begin(behind);

  for (int chunk = end - 1; chunk >= begin; --chunk) {
    const bool has_next = chunk > begin;
    typename Memory::Steady& steady = steady_of(chunk);
    await_groups<0>();
    __syncthreads();
    if (kAhead && has_next) warp.load_steady(steady_of(chunk - 1), chunk - 1);
    if (has_scalars) warp.cuts = cuts_of(memory.scalar, warp.in.lane);
    if constexpr (kAlike) warp.through = Through(memory.scalar, warp.in.lane);
    typename Warp::Rows left_rows, right_rows;
    Pair scores[4];
    float itself[2][2];
    warp.score_steady(scores, itself, left_rows, right_rows, steady);
    warp.share_decayed();
    __syncthreads();
    const float next_scalar =
        has_scalars && has_next && threadIdx.x < kChunkTokens
            ? scalar_log2(p, head, (chunk - 1) * kChunkTokens + static_cast<int>(threadIdx.x))
            : 0;
    OwnScores own;
    warp.differentiate_fading(own, scores, itself, left_rows, right_rows, steady);
    warp.store_rows(memory.right, p.fading.d_right, p.fading.size, chunk);
    warp.store_rows(memory.left, p.fading.d_left, p.fading.size, chunk);
    __syncwarp();
    if (has_next) warp.load_own(memory.left, p.fading.left, chunk - 1);
    if (warp.wants_logs) gradient.find_boundary(steady, warp.through);
    if constexpr (!kBoth) {
      Fragment own_scores;
      warp.finish_scores(own_scores, own);
      warp.template differentiate_steady<true>(own_scores, steady, chunk);
      warp.template differentiate_steady<false>(own_scores, steady, chunk);
    }
    if (has_next) warp.load_own(memory.right, p.fading.right, chunk - 1);
    __syncthreads();
    if constexpr (kAlike) {
      warp.finish_scalars(chunk);
    } else {
      warp.finish_logs(chunk);
      if constexpr (Memory::kParts == 1) warp.put_scalars(chunk);
    }
    if (has_next) warp.load_log(chunk - 1);
    if (threadIdx.x < kChunkTokens) memory.scalar[threadIdx.x] = next_scalar;
    gradient.advance(steady, warp.through);
    if constexpr (!kAhead) {
      __syncthreads();
      if constexpr (Memory::kParts > 1 && !kAlike) warp.put_scalars(chunk);
      if (has_next) warp.load_steady(steady_of(chunk - 1), chunk - 1);
    }
    end_group();
  }
  if (begin == 0 && p.d_first) {
    gradient.rows.template each<kTurned>(
        p, [&](float& x, int at, int) { p.d_first.put(n * size + at, x); });
  }
}

}  // namespace regla::cuda
