#pragma once

#include "backends/cuda/linear_attention_backward_chunk.cuh"
#include "backends/cuda/linear_attention_through.cuh"

namespace regla::cuda {

/// first or second += a b; never by a branch, which lanes would take in turn.
__device__ inline void add_to_one(float& first, float& second, float a, float b, bool to_first) {
  asm("{\n"
      ".reg .pred p;\n"
      "setp.ne.u32 p, %4, 0;\n"
      "@p fma.rn.f32 %0, %2, %3, %0;\n"
      "@!p fma.rn.f32 %1, %2, %3, %1;\n"
      "}"
      : "+f"(first), "+f"(second)
      : "f"(a), "f"(b), "r"(static_cast<uint32_t>(to_first)));
}

/// A warp's 16 tokens of a chunk: how they come and go, what they show to other warps, and their
/// scores on the axis that does not decay. Where all components decay alike (kAlike), the scores
/// do, before they are rounded, and nothing that is multiplied is scaled.
template <int N, bool kTurned, bool kBoth, bool kAlike>
struct BackwardRows {
  using Memory = BackwardMemory<N, kBoth>;
  static constexpr int kPitch = Memory::kPitch, kTokenPitch = Memory::kTokenPitch;
  static constexpr int kPieces = N / 16;
  static constexpr bool kHolds = N == 64;   // own rows of the steady axis, in registers
  using Rows = Pair[kHolds ? kPieces : 1];  // transposed

  const ChunkedBackward& p;
  Memory& memory;
  Lane in;
  const Head& head;
  int warp, block, part;      // its tokens: 16 block, its components: 64 part
  uint32_t of_1, of_2, of_4;  // scores of 8 x 8 tokens that belong to blocks of so many
  bool wants_logs;            // d_log or d_log_s
  uint64_t cuts = 0;          // tokens of the chunk that nothing passes
  Through through;            // where kAlike

  __device__ BackwardRows(const ChunkedBackward& problem, Memory& shared, const Head& places)
      : p(problem), memory(shared), head(places) {
    warp = static_cast<int>(threadIdx.x) / 32;
    block = warp % 4;
    part = warp / 4;
    of_1 = of_2 = of_4 = 0;
    for (int e = 0; e < 2; ++e) {
      const int apart = in.group ^ (2 * in.member + e);
      const uint32_t half = e == 0 ? 0x0000ffffu : 0xffff0000u;
      if (apart == 1) of_1 |= half;
      if (apart == 2 || apart == 3) of_2 |= half;
      if (apart >= 4) of_4 |= half;
    }
    wants_logs = p.fading.d_log || p.d_log_s;
  }

  /// Of a tile the place of this warp's tokens and components.
  template <class Element>
  __device__ Element* own(Element* tile) const {
    return tile + 16 * block * kPitch + 64 * part;
  }

  // ---- copies

  /// This warp's tokens and components of a tensor of the fading axis.
  __device__ void load_own(Bf16* tile, const Bf16* from, int chunk) const {
    const int size = p.fading.size, t = chunk * kChunkTokens + 16 * block;
    copy_rows<64, 16, 32, kPitch>(own(tile), from + head.at(t, size) + 64 * part, p.H * size,
                                  size - 64 * part, p.steps - t, in.lane);
  }
  __device__ void load_log(int chunk) const {
    if (p.fading.log != nullptr) load_own(memory.log, p.fading.log, chunk);
  }

  /// What all warps read of a chunk.
  __device__ void load_steady(typename Memory::Steady& to, int chunk) const {
    const int size = p.steady.size, rows = kTurned ? p.fading.size : size;
    const int columns = kTurned ? size : p.fading.size;
    load_tokens<N, kChunkTokens>(p, to.left, p.steady.left, size, head, chunk * kChunkTokens);
    load_tokens<N, kChunkTokens>(p, to.right, p.steady.right, size, head, chunk * kChunkTokens);
    if constexpr (kBoth) {
      load_tokens<N, kChunkTokens>(p, to.log, p.steady.log, size, head, chunk * kChunkTokens);
    }
    copy_rows<N, N, 2 * N>(to.state, p.kept + (int64_t{head.n} * p.chunks + chunk) * rows * columns,
                           columns, columns, rows, static_cast<int>(threadIdx.x));
  }

  /// Gradients from their place in shared memory.
  __device__ void store_rows(const Bf16* tile, const Result<float>& to, int size, int chunk) const {
    if (!to) return;
    const int row = in.lane / 8, column = in.lane % 8 * 8;
    const int t = chunk * kChunkTokens + 16 * block + row;
    const int rows = 64 * part + column < size ? min(p.steps - t, 16 - row) : 0;
    const Bf16* const from = own(tile) + row * kPitch + column;
    const int64_t place = head.at(t, size) + 64 * part + column, step = int64_t{4} * p.H * size;
    if (Bf16* const plain = to.plain()) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 piece = *reinterpret_cast<const uint4*>(from + 4 * i * kPitch);
        if (4 * i < rows) *reinterpret_cast<uint4*>(plain + place + i * step) = piece;
      }
    } else {
#pragma unroll 1
      for (int i = 0; 4 * i < rows; ++i) {
#pragma unroll 1
        for (int e = 0; e < 8; ++e) {
          to.put(place + i * step + e, __bfloat162float(from[4 * i * kPitch + e]));
        }
      }
    }
  }

  // ---- decays

  /// Of 16 components from `column` on, over the block's tokens.
  __device__ RowDecays decays_of(int column) const {
    if constexpr (kAlike) {
      const float ones[4][2] = {{1, 1}, {1, 1}, {1, 1}, {1, 1}};
      return RowDecays(ones);
    }
    return cuda::decays_of(p.fading.log != nullptr, in, memory.log + 16 * block * kPitch + column,
                           kPitch, memory.scalar + 16 * block);
  }

  /// Queries, keys and totals of the block, for all warps; no more decayed than components fade.
  __device__ void share_decayed() const {
#pragma unroll 2
    for (int piece = 0; piece < 4; ++piece) {
      const int column = 64 * part + 16 * piece, row = column + in.group;
      RowDecays decays = decays_of(column);
      decays.template join<2>(in.member);
      decays.template join<4>(in.member);
      decays.join_all();
      Fragment left, right;
      in.load_transposed(left, memory.left + 16 * block * kPitch + column, kPitch);
      in.load_transposed(right, memory.right + 16 * block * kPitch + column, kPitch);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = (row + i % 2 * 8) * kTokenPitch + 16 * block + i / 2 * 8 + 2 * in.member;
        *reinterpret_cast<uint32_t*>(memory.queries + at) =
            scaled(left[i], decays.p[i][0], decays.p[i][1]);
        *reinterpret_cast<uint32_t*>(memory.keys + at) =
            scaled(right[i], decays.r[i][0], decays.r[i][1]);
      }
      if (in.member == 0) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          memory.total[block][row + 8 * i] = decays.total[i];
          memory.narrow_total[block][row + 8 * i] = __float2bfloat16_rn(decays.total[i]);
        }
      }
    }
  }

  // ---- scores of the steady axis

  __device__ void load_rows(Rows& left, Rows& right, const typename Memory::Steady& steady) const {
    if constexpr (kHolds) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        load_row<true>(left[i], steady, i);
        load_row<false>(right[i], steady, i);
      }
    }
  }
  /// Piece i of what this block's tokens read the state before the chunk with (kLeft), or write the
  /// one behind it with.
  template <bool kLeft>
  __device__ void load_row(Pair& to, const typename Memory::Steady& steady, int i) const {
    const Bf16* const tile = kLeft ? steady.left : steady.right;
    in.load_as_right_transposed(to, tile + 16 * block * kPitch + 16 * i, kPitch);
    if constexpr (kLeft) {
      fade(to, steady, 16 * i, 0, block);
    } else {
      fade(to, steady, 16 * i, block + 1, 4);
    }
  }
  /// The same, held or loaded.
  template <bool kLeft>
  __device__ void get_row(Pair& to, const Rows& rows, const typename Memory::Steady& steady,
                          int i) const {
    if constexpr (kHolds) {
#pragma unroll
      for (int e = 0; e < 4; ++e) to[e] = rows[i][e];
    } else {
      load_row<kLeft>(to, steady, i);
    }
  }

  /// Where both axes decay: operands of 16 components of the steady one from `column` on, A or B,
  /// over blocks of tokens.
  template <bool kIsA = false>
  __device__ void fade(uint32_t (&to)[4], const typename Memory::Steady& steady, int column,
                       int first_block, int end_block) const {
    if constexpr (kBoth) {
      if (first_block >= end_block) return;
      float factors[2][2] = {{1, 1}, {1, 1}};
      for (int over = first_block; over < end_block; ++over) {
        const float* const total = steady.total[over] + column + 2 * in.member;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float2 pair = *reinterpret_cast<const float2*>(total + 8 * i);
          factors[i][0] *= pair.x;
          factors[i][1] *= pair.y;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&by)[2] = factors[kIsA ? i / 2 : i % 2];
        to[i] = scaled(to[i], by[0], by[1]);
      }
    }
  }

  /// scores[0] of a block's tokens with each other, whichever of both reads, but for those of a
  /// token with itself.
  __device__ void score_own(Pair (&scores)[4], float (&itself)[2][2], const Rows& left,
                            const Rows& right, const typename Memory::Steady& steady) const {
    Square lower = {}, upper = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment a;
      Pair b;
      const int at = 16 * block * kPitch + 16 * i;
      in.load(a, steady.left + at, kPitch);
      get_row<false>(b, right, steady, i);
      multiply_blocks(lower, a, b);
      in.load(a, steady.right + at, kPitch);
      get_row<true>(b, left, steady, i);
      multiply_blocks(upper, a, b);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      // Token 8 tile + 2 member + e with itself lies in lane 4 (2 member + e) + member.
      const int lane = 9 * in.member + 4 * e;
      itself[0][e] = __shfl_sync(0xffffffffu, lower[0][e], lane);
      itself[1][e] = __shfl_sync(0xffffffffu, lower[1][2 + e], lane);
    }
    // Rows read: below the diagonal.
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool reads = in.group > 2 * in.member + e;
      lower[0][e] = reads ? lower[0][e] : upper[0][e];
      lower[1][2 + e] = reads ? lower[1][2 + e] : upper[1][2 + e];
      lower[1][e] = upper[1][e];
    }
    if constexpr (kAlike) through.fade(lower, block, block, in);
    round_transposed(scores[0], lower);
  }

  /// scores[d], d > 0: of this block's tokens with those of block (block + d) % 4, whichever of
  /// both reads.
  __device__ void score_others(Pair (&scores)[4], const typename Memory::Steady& steady) const {
#pragma unroll
    for (int d = 1; d < 4; ++d) {
      const bool reads = block + d >= 4;
      const int other = (block + d) % 4;
      const Bf16* const own_tile = reads ? steady.left : steady.right;
      const Bf16* const tile = (reads ? steady.right : steady.left) + 16 * other * kPitch;
      Square sums = {};
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        Fragment a;
        Pair b;
        in.load(a, own_tile + 16 * block * kPitch + 16 * i, kPitch);
        in.load_as_right_transposed(b, tile + 16 * i, kPitch);
        // Of both warps that find these scores each rounds what is read, so that they are the same.
        if (reads) {
          fade(b, steady, 16 * i, other + 1, block);
        } else {
          fade<true>(a, steady, 16 * i, block + 1, other);
        }
        multiply_blocks(sums, a, b);
      }
      if constexpr (kAlike) through.fade(sums, block, other, in);
      round_transposed(scores[d], sums);
    }
  }
};

}  // namespace regla::cuda
