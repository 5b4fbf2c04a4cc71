#pragma once

#include "backends/cuda/linear_attention_backward_chunk.cuh"

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

/// The scores of a block's 16 tokens with each other: those of blocks of 1, 2, 4 and 8 tokens, and
/// of tokens with themselves.
struct OwnScores {
  float of_1[4] = {}, of_2[4] = {}, of_4[4] = {}, of_8[4] = {};  // of either half, or across
  float itself[2][2] = {};                                       // [tile][token of a pair]
};

template <int N, bool kTurned>
struct BackwardWarp {
  using Memory = BackwardMemory<N>;
  static constexpr int kPitch = Memory::kPitch, kTokenPitch = Memory::kTokenPitch;
  static constexpr int kPieces = N / 16;
  static constexpr bool kHolds = N == 64;   // own rows of the steady axis, in registers
  using Rows = Pair[kHolds ? kPieces : 1];  // transposed

  const ChunkedBackward& p;
  Memory& memory;
  Lane in;
  const HeadPlaces& head;
  int warp, block, part;      // its tokens: 16 block, its components: 64 part
  uint32_t of_1, of_2, of_4;  // scores of 8 x 8 tokens that belong to blocks of so many
  bool wants_logs;            // d_log or d_log_s
  uint64_t cuts = 0;          // tokens of the chunk that nothing passes

  __device__ BackwardWarp(const ChunkedBackward& problem, Memory& shared, const HeadPlaces& places)
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

  __device__ Bf16* own(Bf16* tile) const { return tile + 16 * block * kPitch + 64 * part; }

  // ---- copies

  /// This warp's tokens and components of a tensor of the fading axis.
  __device__ void load_own(Bf16* tile, const Bf16* from, int chunk) const {
    const int row = in.lane / 8, column = in.lane % 8 * 8, size = p.fading.size;
    const int t = chunk * kChunkTokens + 16 * block + row;
    const int rows = 64 * part + column < size ? min(p.steps - t, 16 - row) : 0;
    copy_pieces<4, 4, kPitch>(own(tile) + row * kPitch + column,
                              from + head.row(t, size) + 64 * part + column, p.H * size, rows);
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
    constexpr int kStep = 16;  // 2 N threads
    const int row = static_cast<int>(threadIdx.x) / (N / 8);
    const int column = static_cast<int>(threadIdx.x) % (N / 8) * 8;
    const Bf16* const state = p.kept + (head.n * p.chunks + chunk) * rows * columns;
    copy_pieces<N / kStep, kStep, kPitch>(to.state + row * kPitch + column,
                                          state + row * columns + column, columns,
                                          column < columns ? rows - row : 0);
  }

  /// Gradients from their place in shared memory.
  __device__ void store_rows(const Bf16* tile, const Result<float>& to, int size, int chunk) const {
    if (!to) return;
    const int row = in.lane / 8, column = in.lane % 8 * 8;
    const int t = chunk * kChunkTokens + 16 * block + row;
    const int rows = 64 * part + column < size ? min(p.steps - t, 16 - row) : 0;
    const Bf16* const from = own_of(tile) + row * kPitch + column;
    const int64_t place = head.row(t, size) + 64 * part + column, step = int64_t{4} * p.H * size;
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
  __device__ const Bf16* own_of(const Bf16* tile) const {
    return tile + 16 * block * kPitch + 64 * part;
  }

  // ---- decays

  /// Of 16 components from `column` on, over the block's tokens.
  __device__ RowDecays decays_of(int column) const {
    return cuda::decays_of(p, in, memory.log + 16 * block * kPitch + column, kPitch,
                           memory.scalar + 16 * block);
  }

  /// Queries, keys and totals of the block, for all warps.
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

  __device__ void load_rows(Rows& rows, const Bf16* tile) const {
    if constexpr (kHolds) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) load_row(rows[i], tile, i);
    }
  }
  __device__ void load_row(Pair& to, const Bf16* tile, int i) const {
    in.load_as_right_transposed(to, tile + 16 * block * kPitch + 16 * i, kPitch);
  }
  /// Piece i of this block's rows, held or loaded.
  __device__ void get_row(Pair& to, const Rows& rows, const Bf16* tile, int i) const {
    if constexpr (kHolds) {
#pragma unroll
      for (int e = 0; e < 4; ++e) to[e] = rows[i][e];
    } else {
      load_row(to, tile, i);
    }
  }

  /// scores[d]: of this block's tokens with those of block (block + d) % 4, whichever of both
  /// reads; scores[0] has no token with itself, those are `itself`.
  __device__ void score_steady(Pair (&scores)[4], float (&itself)[2][2], const Rows& left,
                               const Rows& right, const typename Memory::Steady& steady) const {
    Square lower = {}, upper = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment a;
      Pair b;
      in.load(a, steady.left + 16 * block * kPitch + 16 * i, kPitch);
      get_row(b, right, steady.right, i);
      multiply_blocks(lower, a, b);
      in.load(a, steady.right + 16 * block * kPitch + 16 * i, kPitch);
      get_row(b, left, steady.left, i);
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
    round_transposed(scores[0], lower);
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
        multiply_blocks(sums, a, b);
      }
      round_transposed(scores[d], sums);
    }
  }

  // ---- gradients of the fading axis

  /// One level of a block: of each pair of blocks of kTokens, the second one's tokens read.
  template <int kTokens>
  __device__ void level(Square& o, Square& d_right, float (&own)[4], const RowDecays& decays,
                        const Fragment& left, const Fragment& right, const Pair& scores) const {
    float factor[4][2];
    Fragment x;
    const bool lane_reads = kTokens < 8 && (in.member & (kTokens / 2)) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kTokens == 1) {
        factor[i][0] = 1;
        factor[i][1] = decays.r[i][0];  // the second one's decay
        x[i] = scaled(__byte_perm(right[i], left[i], 0x7610), 1, factor[i][1]);
      } else {
        const bool reads = kTokens == 8 ? i >= 2 : lane_reads;
#pragma unroll
        for (int e = 0; e < 2; ++e) factor[i][e] = reads ? decays.p[i][e] : decays.r[i][e];
        x[i] = scaled(reads ? left[i] : right[i], factor[i][0], factor[i][1]);
      }
    }
    const uint32_t z[4] = {transposed(x[0]), transposed(x[2]), transposed(x[1]), transposed(x[3])};
    const Fragment upper = {z[0], 0, z[2], 0}, lower = {0, z[1], 0, z[3]};
    Square y = {};
    if constexpr (kTokens < 8) {
      const uint32_t mask = kTokens == 1 ? of_1 : kTokens == 2 ? of_2 : of_4;
      multiply_add(own, upper, z[0], z[2]);
      multiply_add(own, lower, z[1], z[3]);
      multiply_add(y[0], x[0], x[1], scores[0] & mask);
      multiply_add(y[1], x[2], x[3], scores[3] & mask);
    } else {
      multiply_add(own, upper, z[1], z[3]);
      multiply_add(own, lower, z[0], z[2]);
      multiply_add(y[0], x[2], x[3], scores[1]);
      multiply_add(y[1], x[0], x[1], scores[2]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& to_o = o[i / 2][i % 2 * 2 + e];
        float& to_right = d_right[i / 2][i % 2 * 2 + e];
        const float sum = y[i / 2][i % 2 * 2 + e];
        if constexpr (kTokens == 2 || kTokens == 4) {
          add_to_one(to_o, to_right, factor[i][e], sum, lane_reads);
        } else {
          const bool reads = kTokens == 8 ? i >= 2 : e == 1;
          (reads ? to_o : to_right) += factor[i][e] * sum;
        }
      }
    }
  }

  /// What the block's tokens read of the state before the chunk and of the blocks before theirs
  /// (`before`), and what reads them behind the chunk and in later blocks (`behind`): 16 components
  /// from `column` on, not yet decayed within the block.
  __device__ void read_others(Square& before, Square& behind, int column, const Pair (&scores)[4],
                              const Rows& left, const Rows& right,
                              const typename Memory::Steady& steady) const {
    Square sums[4] = {};
#pragma unroll
    for (int d = 1; d < 4; ++d) {
      const Bf16* const tile = block + d < 4 ? memory.queries : memory.keys;
      Fragment a;
      in.load(a, tile + column * kTokenPitch + 16 * ((block + d) % 4), kTokenPitch);
      multiply_blocks(sums[d], a, scores[d]);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      Fragment a;
      Pair b;
      in.load(a, memory.d_state + column * kPitch + 16 * i, kPitch);
      get_row(b, right, steady.right, i);
      multiply_blocks(behind, a, b);
      if constexpr (kTurned) {
        in.load(a, steady.state + column * kPitch + 16 * i, kPitch);
      } else {
        in.load_transposed(a, steady.state + 16 * i * kPitch + column, kPitch);
      }
      get_row(b, left, steady.left, i);
      multiply_blocks(before, a, b);
    }
    // Decays over the blocks in between, from the nearest block to the farthest; the states last.
    float total[4][2], between[4][2], to_before[2] = {1, 1}, to_behind[2] = {1, 1};
#pragma unroll
    for (int d = 1; d < 4; ++d) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        total[d][row] = memory.total[(block + d) % 4][column + in.group + 8 * row];
      }
    }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int d = 1; d < 4; ++d) {
        const bool is_later = block + d < 4, mirror_is_earlier = block - d >= 0;
        if (is_later) between[d][row] = to_behind[row];
        if (mirror_is_earlier) between[4 - d][row] = to_before[row];
        to_behind[row] *= is_later ? total[d][row] : 1;
        to_before[row] *= mirror_is_earlier ? total[4 - d][row] : 1;
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      before[i / 4][i % 4] *= to_before[i % 4 / 2];
      behind[i / 4][i % 4] *= to_behind[i % 4 / 2];
    }
#pragma unroll
    for (int d = 1; d < 4; ++d) {
      if (block + d < 4) {
        add_scaled(behind, sums[d], between[d]);
      } else {
        add_scaled(before, sums[d], between[d]);
      }
    }
  }
  __device__ static void add_scaled(Square& to, const Square& from, const float (&scale)[2]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i / 4][i % 4] += scale[i % 4 / 2] * from[i / 4][i % 4];
  }

  /// Sums over the block's later tokens, their own term included; the block's sums go to memory.
  __device__ void add_up(Square& terms, int column) const {
    const uint32_t block_cuts = static_cast<uint32_t>(cuts >> (16 * block)) & 0xffffu;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float total;
      if (block_cuts != 0) {
        total = 0;
#pragma unroll
        for (int tile = 1; tile >= 0; --tile) {
#pragma unroll 1
          for (int pair = 3; pair >= 0; --pair) {
#pragma unroll
            for (int e = 1; e >= 0; --e) {
              float& own = terms[tile][2 * row + e];
              const float term = __shfl_sync(0xffffffffu, own, 4 * in.group + pair);
              total = (block_cuts >> (8 * tile + 2 * pair + e) & 1) != 0 ? 0 : total + term;
              if (in.member == pair) own = total;
            }
          }
        }
      } else {
        float sums[2], later[2];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          float sum = terms[tile][2 * row] + terms[tile][2 * row + 1];
          const float next = __shfl_xor_sync(0xffffffffu, sum, 1);
          later[tile] = (in.member & 1) != 0 ? 0 : next;
          sum += next;
          const float far = __shfl_xor_sync(0xffffffffu, sum, 2);
          later[tile] += (in.member & 2) != 0 ? 0 : far;
          sums[tile] = sum + far;
        }
        later[0] += sums[1];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          terms[tile][2 * row + 1] += later[tile];
          terms[tile][2 * row] += terms[tile][2 * row + 1];
        }
        total = sums[0] + sums[1];
      }
      if (in.member == 0) memory.sums[block][column + in.group + 8 * row] = total;
    }
  }

  /// The transpose of c, rounded, into the warp's rows of a tile.
  __device__ void put_transposed(Bf16* tile, int column, const Square& c) const {
    Fragment from;
    round(from, c);
    Bf16* const corner = tile + 16 * block * kPitch + column;
    in.put_transposed(from, corner, kPitch);
  }

  /// d_right, what stands for o, and the block's terms of d_log, each in the place of an input.
  __device__ void differentiate_fading(OwnScores& own, const Pair (&scores)[4],
                                       const float (&itself)[2][2], const Rows& left_rows,
                                       const Rows& right_rows,
                                       const typename Memory::Steady& steady) const {
#pragma unroll 1
    for (int piece = 0; piece < 4; ++piece) {
      const int column = 64 * part + 16 * piece;
      Fragment left, right;
      in.load_transposed(left, memory.left + 16 * block * kPitch + column, kPitch);
      in.load_transposed(right, memory.right + 16 * block * kPitch + column, kPitch);
      RowDecays decays = decays_of(column);
      Square o = {}, d_right = {};
      level<1>(o, d_right, own.of_1, decays, left, right, scores[0]);
      level<2>(o, d_right, own.of_2, decays, left, right, scores[0]);
      decays.template join<2>(in.member);
      level<4>(o, d_right, own.of_4, decays, left, right, scores[0]);
      decays.template join<4>(in.member);
      level<8>(o, d_right, own.of_8, decays, left, right, scores[0]);
      decays.join_all();
      Square before = {}, behind = {};
      read_others(before, behind, column, scores, left_rows, right_rows, steady);
      Square terms;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 l = unpacked(left[i]), r = unpacked(right[i]);
        const float ls[2] = {l.x, l.y}, rs[2] = {r.x, r.y};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float &to_o = o[i / 2][i % 2 * 2 + e], &to_right = d_right[i / 2][i % 2 * 2 + e];
          to_o += decays.p[i][e] * before[i / 2][i % 2 * 2 + e];
          to_right += decays.r[i][e] * behind[i / 2][i % 2 * 2 + e];
          terms[i / 2][i % 2 * 2 + e] = to_o * ls[e] - to_right * rs[e];
          // A token with itself: this term of both would cancel.
          to_o += itself[i / 2][e] * rs[e];
          to_right += itself[i / 2][e] * ls[e];
          own.itself[i / 2][e] += ls[e] * rs[e];
        }
      }
      __syncwarp();
      put_transposed(memory.right, column, d_right);
      if (p.fading.d_left) put_transposed(memory.left, column, o);
      if (wants_logs) {
        add_up(terms, column);
        put_transposed(memory.log, column, terms);
      }
    }
    __syncwarp();
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
    to[0] = packed(halves[0], halves[1]);
    to[1] = packed(own.of_8[2], own.of_8[3]);
    to[2] = packed(own.of_8[0], own.of_8[1]);
    to[3] = packed(halves[2], halves[3]);
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
#pragma unroll
    for (int i = 0; i < 20; ++i) memory.parts[(warp * 20 + i) * 32 + in.lane] = number(own, i);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 20; ++i) {
      number(own, i) = 0;
#pragma unroll
      for (int other = block; other < Memory::kWarps; other += 4) {
        number(own, i) += memory.parts[(other * 20 + i) * 32 + in.lane];
      }
    }
  }

  // ---- gradients of the steady axis

  /// d_left (kLeft), of what the block's tokens read, or d_right, of what they write, for 64
  /// components of the steady axis; then it goes where it is wanted.
  template <bool kLeft>
  __device__ void differentiate_steady(const Fragment& own_scores,
                                       const typename Memory::Steady& steady, int chunk) const {
    const Result<float>& to = kLeft ? p.steady.d_left : p.steady.d_right;
    if (!to) return;
    const Bf16* const others = kLeft ? steady.right : steady.left;
    Fragment rows[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const Bf16* const tile = kLeft ? memory.queries : memory.keys;
      in.load_transposed(rows[i], tile + 16 * i * kTokenPitch + 16 * block, kTokenPitch);
    }
    Square sums[4] = {};
    Fragment scores;
    {
      // Queries read what is not behind them: the lower triangle.
      const auto keep = [&](int e) {
        return kLeft ? in.group >= 2 * in.member + e : in.group <= 2 * in.member + e;
      };
      const uint32_t mask = (keep(0) ? 0x0000ffffu : 0) | (keep(1) ? 0xffff0000u : 0);
      scores[0] = own_scores[0] & mask;
      scores[1] = kLeft ? own_scores[1] : 0;
      scores[2] = kLeft ? 0 : own_scores[2];
      scores[3] = own_scores[3] & mask;
    }
    add_scored(sums, scores, others, block);
#pragma unroll 1
    for (int other = kLeft ? block - 1 : block + 1; kLeft ? other >= 0 : other < 4;
         other += kLeft ? -1 : 1) {
      const Bf16* const tile = (kLeft ? memory.keys : memory.queries) + 16 * other;
      Square across = {};
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        Pair b;
        in.load_as_right(b, tile + 16 * i * kTokenPitch, kTokenPitch);
        multiply_blocks(across, rows[i], b);
      }
      round(scores, across);
      add_scored(sums, scores, others, other);
      decay_columns(rows, other);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
#pragma unroll
      for (int piece = 0; piece < 4; ++piece) {
        const int column = 64 * part + 16 * piece;
        Pair b;
        if constexpr (!kLeft) {
          in.load_as_right(b, memory.d_state + 16 * i * kPitch + column, kPitch);
        } else if constexpr (kTurned) {
          in.load_as_right(b, steady.state + 16 * i * kPitch + column, kPitch);
        } else {
          in.load_as_right_transposed(b, steady.state + column * kPitch + 16 * i, kPitch);
        }
        multiply_blocks(sums[piece], rows[i], b);
      }
    }
    if (Bf16* const plain = to.plain()) {
      const int t = chunk * kChunkTokens + 16 * block + in.group;
      const int columns = p.steady.size - 64 * part;
      Bf16* place = plain + head.row(t, p.steady.size) + 64 * part + 2 * in.member;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        if (t + 8 * row < p.steps) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (16 * i >= columns) break;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const float* const c = sums[i][half] + 2 * row;
              *reinterpret_cast<uint32_t*>(place + 16 * i + 8 * half) = packed(c[0], c[1]);
            }
          }
        }
        place += int64_t{8} * p.H * p.steady.size;
      }
      return;
    }
    Bf16* const place = own(memory.right) + in.group * kPitch + 2 * in.member;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float(&c)[4] = sums[i / 2][i % 2];
      *reinterpret_cast<uint32_t*>(place + 8 * i) = packed(c[0], c[1]);
      *reinterpret_cast<uint32_t*>(place + 8 * kPitch + 8 * i) = packed(c[2], c[3]);
    }
    __syncwarp();
    store_rows(memory.right, to, p.steady.size, chunk);
    __syncwarp();
  }

  __device__ void add_scored(Square (&sums)[4], const Fragment& scores, const Bf16* others,
                             int other) const {
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
      Pair b;
      in.load_as_right(b, others + 16 * other * kPitch + 64 * part + 16 * piece, kPitch);
      multiply_blocks(sums[piece], scores, b);
    }
  }

  __device__ void decay_columns(Fragment (&rows)[kPieces], int over) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const Bf16* const total = memory.narrow_total[over] + 16 * i + 2 * in.member;
      const auto first = *reinterpret_cast<const __nv_bfloat162*>(total);
      const auto second = *reinterpret_cast<const __nv_bfloat162*>(total + 8);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        auto& pair = reinterpret_cast<__nv_bfloat162&>(rows[i][e]);
        pair = __hmul2(pair, e < 2 ? first : second);
      }
    }
  }

  // ---- d_log

  /// d_log of the warp's tokens and components, from the block's sums in the place of `log`.
  __device__ void finish_logs(int chunk) const {
    if (!wants_logs) return;
    const int column = 64 * part + in.lane % 8 * 8;
    float later[8] = {};
    int other = block + 1;
    while (other < 4) {
#pragma unroll
      for (int i = 0; i < 8; ++i) later[i] += memory.sums[other][column + i];
      if ((cuts >> (16 * other) & 0xffffu) != 0) break;
      ++other;
    }
    if (other == 4) {
#pragma unroll
      for (int i = 0; i < 8; ++i) later[i] += memory.boundary[chunk % 2][column + i];
    }
    const uint32_t block_cuts = static_cast<uint32_t>(cuts >> (16 * block)) & 0xffffu;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 4 * i + in.lane / 8;
      const bool passes = (block_cuts >> row) == 0;
      uint4& place = *reinterpret_cast<uint4*>(memory.log + (16 * block + row) * kPitch + column);
      const uint32_t pairs[4] = {place.x, place.y, place.z, place.w};
      float sums[8], all = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 pair = unpacked(pairs[e]);
        sums[2 * e] = pair.x + (passes ? later[2 * e] : 0);
        sums[2 * e + 1] = pair.y + (passes ? later[2 * e + 1] : 0);
        all += sums[2 * e] + sums[2 * e + 1];
      }
      place = make_uint4(packed(sums[0], sums[1]), packed(sums[2], sums[3]),
                         packed(sums[4], sums[5]), packed(sums[6], sums[7]));
      if (p.d_log_s) {
#pragma unroll
        for (int offset = 1; offset < 8; offset *= 2) {
          all += __shfl_xor_sync(0xffffffffu, all, offset);
        }
        if (in.lane % 8 == 0) memory.row_sums[part][16 * block + row] = all;
      }
    }
    store_rows(memory.log, p.fading.d_log, p.fading.size, chunk);
    __syncwarp();
  }
  /// d_log_s, when all parts of the components are summed.
  __device__ void put_scalars(int chunk) const {
    const int t = chunk * kChunkTokens + 16 * block + in.lane;
    if (!p.d_log_s || part != 0 || in.lane >= 16 || t >= p.steps) return;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Memory::kParts; ++i) sum += memory.row_sums[i][16 * block + in.lane];
    p.d_log_s.put(head.row(t, 1), sum);
  }
};

}  // namespace regla::cuda
