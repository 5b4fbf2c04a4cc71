#pragma once

#include "backends/cuda/linear_attention_backward_logs.cuh"

namespace regla::cuda {

/// The gradients that a warp finds for its tokens.
template <int N, bool kTurned, bool kBoth, bool kAlike>
struct BackwardWarp : BackwardLogs<N, kTurned, kBoth, kAlike> {
  using Base = BackwardLogs<N, kTurned, kBoth, kAlike>;
  using Base::Base;
  using Base::block;
  using Base::decays_of;
  using Base::head;
  using Base::in;
  using Base::kPieces;
  using Base::kPitch;
  using Base::kTokenPitch;
  using Base::memory;
  using Base::of_1;
  using Base::of_2;
  using Base::of_4;
  using Base::own;
  using Base::p;
  using Base::part;
  using Base::store_rows;
  using Base::through;
  using Base::wants_logs;
  using Base::warp;
  using typename Base::Memory;
  using typename Base::Rows;

  // ---- gradients of the fading axis

  template <int kTokens>
  __device__ void level(Square& o, Square& d_right, Square& terms, float (&own)[4],
                        const RowDecays& decays, const Fragment& left, const Fragment& right,
                        const Pair& scores) const {
    float factor[4][2];
    Fragment x;
    this->template scale_level<kTokens>(x, factor, decays, left, right);
    if constexpr (!kBoth) this->template score_level<kTokens>(own, x);
    Square y = {};
    if constexpr (kTokens < 8) {
      const uint32_t mask = kTokens == 1 ? of_1 : kTokens == 2 ? of_2 : of_4;
      multiply_add(y[0], x[0], x[1], scores[0] & mask);
      multiply_add(y[1], x[2], x[3], scores[3] & mask);
    } else {
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
          add_to_one(to_o, to_right, factor[i][e], sum, this->template lane_reads<kTokens>());
        } else {
          const bool reads = kTokens == 8 ? i >= 2 : e == 1;
          (reads ? to_o : to_right) += factor[i][e] * sum;
        }
        // What both tokens of a pair met rounded, so that the pair's two terms cancel exactly.
        const bool is_read = kTokens == 1   ? e == 1
                             : kTokens == 8 ? i >= 2
                                            : this->template lane_reads<kTokens>();
        const float2 both = unpacked(x[i]);
        const float of = e == 0 ? both.x : both.y;
        terms[i / 2][i % 2 * 2 + e] += (is_read ? of : -of) * sum;
      }
    }
  }

  /// What the block's tokens read of the state before the chunk and of the blocks before theirs
  /// (`before`), and what reads them behind the chunk (`behind`) and in later blocks (`later`): 16
  /// components from `column` on, not yet decayed within the block.
  __device__ void read_others(Square& before, Square& behind, Square& later, int column,
                              const Pair (&scores)[4], const Rows& left, const Rows& right,
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
      this->template get_row<false>(b, right, steady, i);
      multiply_blocks(behind, a, b);
      if constexpr (kTurned) {
        in.load(a, steady.state + column * kPitch + 16 * i, kPitch);
      } else {
        in.load_transposed(a, steady.state + 16 * i * kPitch + column, kPitch);
      }
      this->template get_row<true>(b, left, steady, i);
      multiply_blocks(before, a, b);
    }
    if constexpr (kAlike) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int t = 16 * block + i / 2 * 8 + 2 * in.member + i % 2;
        const float to_before = through.from_before(t), to_behind = through.to_behind(t);
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          before[i / 2][2 * row + i % 2] *= to_before;
          behind[i / 2][2 * row + i % 2] *= to_behind;
        }
      }
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
        add_scaled(later, sums[d], between[d]);
      } else {
        add_scaled(before, sums[d], between[d]);
      }
    }
  }
  __device__ static void add_scaled(Square& to, const Square& from, const float (&scale)[2]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i / 4][i % 4] += scale[i % 4 / 2] * from[i / 4][i % 4];
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
    float of_token[2][2] = {}, all_written = 0;  // where all components decay alike
#pragma unroll 1
    for (int piece = 0; piece < 4; ++piece) {
      const int column = 64 * part + 16 * piece;
      Fragment left, right;
      in.load_transposed(left, memory.left + 16 * block * kPitch + column, kPitch);
      in.load_transposed(right, memory.right + 16 * block * kPitch + column, kPitch);
      RowDecays decays = decays_of(column);
      Square o = {}, d_right = {}, terms = {}, written = {};
      level<1>(o, d_right, terms, own.of_1, decays, left, right, scores[0]);
      level<2>(o, d_right, terms, own.of_2, decays, left, right, scores[0]);
      decays.template join<2>(in.member);
      level<4>(o, d_right, terms, own.of_4, decays, left, right, scores[0]);
      decays.template join<4>(in.member);
      level<8>(o, d_right, terms, own.of_8, decays, left, right, scores[0]);
      decays.join_all();
      Square before = {}, behind = {}, later = {};
      read_others(before, behind, later, column, scores, left_rows, right_rows, steady);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 l = unpacked(left[i]), r = unpacked(right[i]);
        const float ls[2] = {l.x, l.y}, rs[2] = {r.x, r.y};
        // As other blocks see them.
        const float2 lo = unpacked(scaled(left[i], decays.p[i][0], decays.p[i][1]));
        const float2 ro = unpacked(scaled(right[i], decays.r[i][0], decays.r[i][1]));
        const float ls_out[2] = {lo.x, lo.y}, rs_out[2] = {ro.x, ro.y};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float &to_o = o[i / 2][i % 2 * 2 + e], &to_right = d_right[i / 2][i % 2 * 2 + e];
          to_o += decays.p[i][e] * before[i / 2][i % 2 * 2 + e];
          to_right += decays.r[i][e] * (later[i / 2][i % 2 * 2 + e] + behind[i / 2][i % 2 * 2 + e]);
          float& term = terms[i / 2][i % 2 * 2 + e];
          term +=
              ls_out[e] * before[i / 2][i % 2 * 2 + e] - rs_out[e] * later[i / 2][i % 2 * 2 + e];
          const float to_behind = rs_out[e] * behind[i / 2][i % 2 * 2 + e];
          written[i / 2][i % 2 * 2 + e] = to_behind;
          if constexpr (!kBoth) term -= to_behind;
          if constexpr (kAlike) {
            of_token[i / 2][e] += term;
            all_written += to_behind;
          }
          // A token with itself: this term of both would cancel.
          to_o += itself[i / 2][e] * rs[e];
          to_right += itself[i / 2][e] * ls[e];
          if constexpr (!kBoth) own.itself[i / 2][e] += ls[e] * rs[e];
        }
      }
      __syncwarp();
      put_transposed(memory.right, column, d_right);
      if (p.fading.d_left) put_transposed(memory.left, column, o);
      if (wants_logs && !kAlike) {
        this->add_up(terms, column);
        if constexpr (kBoth) {
          this->add_earlier(terms, written, column);
        } else {
          this->add_written(written, column);
        }
        put_transposed(memory.log, column, terms);
      }
    }
    if (wants_logs && kAlike) this->put_terms(of_token, all_written);
    __syncwarp();
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
    if constexpr (kAlike) {
      add_state<kLeft>(sums, rows, steady);
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int t = 16 * block + in.group + 8 * row;
        const float factor = kLeft ? through.from_before(t) : through.to_behind(t);
#pragma unroll
        for (int i = 0; i < 16; ++i) sums[i / 4][i / 2 % 2][2 * row + i % 2] *= factor;
      }
    }
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
      if constexpr (kAlike) through.fade(across, block, other, in);
      round(scores, across);
      add_scored(sums, scores, others, other);
      if constexpr (!kAlike) decay_columns(rows, other);
    }
    if constexpr (!kAlike) add_state<kLeft>(sums, rows, steady);
    put_steady(sums, to, chunk);
  }

  /// What rows decayed to the chunk's beginning or end meet there.
  template <bool kLeft>
  __device__ void add_state(Square (&sums)[4], const Fragment (&rows)[kPieces],
                            const typename Memory::Steady& steady) const {
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
  }

  __device__ void put_steady(const Square (&sums)[4], const Result<float>& to, int chunk) const {
    if (Bf16* const plain = to.plain()) {
      const int t = chunk * kChunkTokens + 16 * block + in.group;
      const int columns = p.steady.size - 64 * part;
      Bf16* place = plain + head.at(t, p.steady.size) + 64 * part + 2 * in.member;
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
};

}  // namespace regla::cuda
