#pragma once

#include "backends/cuda/linear_attention_backward_scores.cuh"

namespace regla::cuda {

/// d_log of a warp's tokens: what its terms add up to.
template <int N, bool kTurned, bool kBoth, bool kAlike>
struct BackwardLogs : BackwardScores<N, kTurned, kBoth, kAlike> {
  using Base = BackwardScores<N, kTurned, kBoth, kAlike>;
  using Base::Base;
  using Base::block;
  using Base::cuts;
  using Base::head;
  using Base::in;
  using Base::kPitch;
  using Base::memory;
  using Base::p;
  using Base::part;
  using Base::store_rows;
  using Base::wants_logs;
  using Base::warp;
  using typename Base::Memory;

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

  /// The block's sums of `written` go to memory.
  __device__ void add_written(const Square& written, int column) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float sum = (written[0][2 * row] + written[0][2 * row + 1]) +
                  (written[1][2 * row] + written[1][2 * row + 1]);
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (in.member == 0) memory.written[block][column + in.group + 8 * row] = sum;
    }
  }

  /// terms += the sums of `written` over the block's earlier tokens; the block's sums go to memory.
  __device__ void add_earlier(Square& terms, const Square& written, int column) const {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float sums[2], earlier[2];
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        float sum = written[tile][2 * row] + written[tile][2 * row + 1];
        const float next = __shfl_xor_sync(0xffffffffu, sum, 1);
        earlier[tile] = (in.member & 1) != 0 ? next : 0;
        sum += next;
        const float far = __shfl_xor_sync(0xffffffffu, sum, 2);
        earlier[tile] += (in.member & 2) != 0 ? far : 0;
        sums[tile] = sum + far;
      }
      earlier[1] += sums[0];
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        terms[tile][2 * row] += earlier[tile];
        terms[tile][2 * row + 1] += earlier[tile] + written[tile][2 * row];
      }
      if (in.member == 0) memory.written[block][column + in.group + 8 * row] = sums[0] + sums[1];
    }
  }

  /// Terms of d_log_s, from all of a part's components.
  __device__ void put_terms(float (&of_token)[2][2], float all_written) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& sum = of_token[i / 2][i % 2];
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      const int token = 16 * block + i / 2 * 8 + 2 * in.member + i % 2;
      if (in.group == 0) memory.row_sums[part][token] = sum;
    }
    all_written = warp_sum(all_written);
    if (in.lane == 0) memory.written[block][part] = all_written;
  }

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
    float earlier[8] = {};
    float(&behind)[8] = kBoth ? earlier : later;
    if (kBoth || other == 4) {
#pragma unroll
      for (int i = 0; i < 8; ++i) behind[i] += memory.boundary[column + i];
      for (int before = 0; before < (kBoth ? block : 4); ++before) {
#pragma unroll
        for (int i = 0; i < 8; ++i) behind[i] += memory.written[before][column + i];
      }
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
        sums[2 * e] = pair.x + earlier[2 * e] + (passes ? later[2 * e] : 0);
        sums[2 * e + 1] = pair.y + earlier[2 * e + 1] + (passes ? later[2 * e + 1] : 0);
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
  /// The same of scalars where all components decay alike, by one warp: the sums of the terms of
  /// later tokens, as far as they are passed on to.
  __device__ void finish_scalars(int chunk) const {
    if (!p.d_log_s || warp != 0) return;
    float behind = in.lane < Memory::kWarps ? memory.written[in.lane % 4][in.lane / 4] : 0;
#pragma unroll
    for (int i = 0; i < N; i += 32) behind += memory.boundary[i + in.lane];
    behind = warp_sum(behind);
    float next = behind;
#pragma unroll
    for (int half = 1; half >= 0; --half) {
      const uint32_t half_cuts = static_cast<uint32_t>(cuts >> (32 * half)) >> in.lane;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < Memory::kParts; ++i) sum += memory.row_sums[i][32 * half + in.lane];
      if ((half_cuts & 1) != 0) sum = 0;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const float later = __shfl_down_sync(0xffffffffu, sum, offset);
        const bool passes = (half_cuts & ((1u << offset) - 1)) == 0;
        sum += in.lane + offset < 32 && passes ? later : 0;
      }
      sum += half_cuts == 0 ? next : 0;
      next = __shfl_sync(0xffffffffu, sum, 0);
      const int t = chunk * kChunkTokens + 32 * half + in.lane;
      if (t < p.steps) p.d_log_s.put(head.at(t, 1), sum);
    }
  }
  /// d_log_s, when all parts of the components are summed.
  __device__ void put_scalars(int chunk) const {
    const int t = chunk * kChunkTokens + 16 * block + in.lane;
    if (!p.d_log_s || part != 0 || in.lane >= 16 || t >= p.steps) return;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Memory::kParts; ++i) sum += memory.row_sums[i][16 * block + in.lane];
    p.d_log_s.put(head.at(t, 1), sum);
  }
};

}  // namespace regla::cuda
