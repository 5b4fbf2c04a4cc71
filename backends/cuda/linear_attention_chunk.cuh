#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cuda/tensor_cores.cuh"

// What a block holds of a tile of 32 tokens in shared memory, and how it comes there.
namespace regla::cuda {

using Bf16 = __nv_bfloat16;

constexpr int kChunkTokens = 64;  // what `kept` has a state for
constexpr int kTileTokens = 32;
constexpr int kWarps = 4, kColumns = 16 * kWarps;  // of a state, per block and for each warp
constexpr int kTileThreads = 32 * kWarps;

/// A launch: the tensors of LinearAttentionArgs and RecurrenceResult, null where undefined.
struct ChunkedAttention {
  const Bf16 *q, *k, *u, *log_a, *log_b;
  const float* log_s;
  const int32_t* reset;
  const float* first;
  Bf16* o;
  float* last;
  Bf16* kept;
  int64_t steps;
  int tiles, chunks, H, K, V;
  int ranks;    // blocks of a cluster, which take turns at the tiles of a head
  int buffers;  // tiles in shared memory: 2, or 1 where there is no room

  __device__ bool has_scalars() const { return log_s != nullptr || reset != nullptr; }
};

/// A head: its first token is row `row` of tensors [B, T, H, ...], token `token` of [B, T].
struct Head {
  int n;
  int64_t row, token;

  __device__ Head(const ChunkedAttention& p, int number)
      : n(number), row(number / p.H * p.steps * p.H + number % p.H), token(number / p.H * p.steps) {}
};

/// Rows of `kWidth` elements in shared memory. Pieces of 16 bytes change places from row to row, so
/// that eight of them, one below the other, meet every bank once. `memory` and `first` are multiples
/// of 256 bytes, and no more than what is constant stands behind the change of places.
template <int kWidth>
struct Rows {
  static_assert(kWidth == 32 || kWidth == 64 || kWidth == 128);
  uint32_t memory, first;

  /// Row `row` + `lane_row` and column `column` + 8 `lane_piece`; `row` is a multiple of 16,
  /// `column` one of 8, `lane_piece` 0 unless `column` is one of 16.
  __device__ uint32_t at(int row, int column, int lane_row, int lane_piece) const {
    const int turn = kWidth == 32 ? lane_row / 2 % 4 : lane_row % 8;
    const uint32_t place = lane_row * 2 * kWidth + (lane_piece ^ turn) * 16;
    return ((memory + place) ^ (2 * column)) + first + row * 2 * kWidth;
  }

  /// Begins to copy the rows of a tile, `rows` of which and `there` of whose elements exist; the
  /// rest becomes 0.
  __device__ void copy(const Bf16* from, int stride, int there, int rows) const {
    constexpr int kPieces = kWidth / 8, kStep = kTileThreads / kPieces;
    const int thread = static_cast<int>(threadIdx.x), row = thread / kPieces;
    const int piece = thread % kPieces, end = 8 * piece < there ? rows : 0;
    from += row * stride + 8 * piece;
#pragma unroll
    for (int i = 0; i < kTileTokens / kStep; ++i) {
      const int at_row = row + i * kStep;
      copy_ahead(at(0, 0, at_row, piece), from + int64_t{i * kStep} * stride, at_row < end);
    }
  }
};

/// A tile in shared memory.
template <int K, bool kKey>
struct Tile {
  static constexpr size_t kBytes =
      kTileTokens * (((kKey ? 3 : 2) * K + 2 * kColumns) * sizeof(Bf16) + 2 * sizeof(float));
  Rows<K> q, k, log_a;      // features from p.K on are 0
  Rows<kColumns> u, log_b;  // columns from p.V on are 0
  float* log_s;             // [32]
  int32_t* reset;           // [32]

  __device__ explicit Tile(unsigned char* memory) {
    constexpr int kKeys = kTileTokens * K * sizeof(Bf16);
    constexpr int kValues = kTileTokens * kColumns * sizeof(Bf16), kAll = (kKey ? 3 : 2) * kKeys;
    const uint32_t address = shared_address(memory);
    q = {address, 0};
    k = {address, kKeys};
    log_a = {address, 2 * kKeys};
    u = {address, kAll};
    log_b = {address, kAll + kValues};
    log_s = reinterpret_cast<float*>(memory + kAll + 2 * kValues);
    reset = reinterpret_cast<int32_t*>(log_s + kTileTokens);
  }

  /// Factors that nobody gave are 1.
  __device__ void clear() const {
    for (int i = threadIdx.x; i < kTileTokens; i += blockDim.x) {
      log_s[i] = 0;
      reset[i] = 0;
    }
  }

  /// Begins to load: tokens behind the last one are 0, with factors of 1.
  __device__ void load(const ChunkedAttention& p, const Head& head, int number,
                       int first_column) const {
    const int64_t t0 = int64_t{number} * kTileTokens, row = head.row + t0 * p.H;
    const int tokens = static_cast<int>(min(p.steps - t0, int64_t{kTileTokens}));
    const int64_t keys = row * p.K, values = row * p.V + first_column;
    const int key_stride = p.H * p.K, value_stride = p.H * p.V, columns = p.V - first_column;
    q.copy(p.q + keys, key_stride, p.K, tokens);
    k.copy(p.k + keys, key_stride, p.K, tokens);
    if (kKey) log_a.copy(p.log_a + keys, key_stride, p.K, tokens);
    u.copy(p.u + values, value_stride, columns, tokens);
    if (p.log_b != nullptr) {
      log_b.copy(p.log_b + values, value_stride, columns, tokens);
    }
    const int t = static_cast<int>(threadIdx.x);
    if (p.has_scalars() && t < kTileTokens) {
      if (p.log_s != nullptr) copy_word_ahead(log_s + t, p.log_s + row + t * p.H, t < tokens);
      if (p.reset != nullptr) {
        copy_word_ahead(reset + t, p.reset + head.token + t0 + t, t < tokens);
      }
    }
    end_group();
  }

  /// The logs to base 2 of all that has one factor for a token.
  __device__ float scalar_log2(int t) const {
    constexpr float kLog2e = 1.44269504f;
    return reset[t] != 0 ? -INFINITY : log_s[t] * kLog2e;
  }
};

/// What a lane is in its warp's fragments.
struct Lane {
  int lane, group, member;  // lane / 4, lane % 4

  __device__ Lane() {
    // Asked for once: it would rather be asked for again and again than have a register.
    uint32_t thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    lane = static_cast<int>(thread % 32);
    group = lane / 4;
    member = lane % 4;
  }

  /// A tile of 16 x 16, from a corner on, as an A fragment.
  template <int kWidth>
  __device__ void load(uint32_t (&to)[4], Rows<kWidth> from, int row, int column) const {
    load_tiles(to, from.at(row, column, lane % 16, lane / 16));
  }
  /// Its transpose as an A fragment.
  template <int kWidth>
  __device__ void load_transposed(uint32_t (&to)[4], Rows<kWidth> from, int row, int column) const {
    load_tiles_transposed(to, from.at(row, column, lane % 8 + lane / 16 * 8, lane / 8 % 2));
  }
  /// As two B fragments, registers 0 and 1 for its first 8 columns, 2 and 3 for the others.
  template <int kWidth>
  __device__ void load_right(uint32_t (&to)[4], Rows<kWidth> from, int row, int column) const {
    load_tiles_transposed(to, from.at(row, column, lane % 16, lane / 16));
  }
  /// Its transpose as two B fragments, registers 0 and 1 for its first 8 rows.
  template <int kWidth>
  __device__ void load_right_transposed(uint32_t (&to)[4], Rows<kWidth> from, int row,
                                        int column) const {
    load_tiles(to, from.at(row, column, lane % 8 + lane / 16 * 8, lane / 8 % 2));
  }
  /// Where register i of an A fragment has its two elements; with `down` and `right` exchanged that
  /// of its transpose.
  template <int kWidth>
  __device__ uint32_t pair(Rows<kWidth> rows, int row, int column, int down, int right) const {
    return rows.at(row, column + 8 * right, group, 0) + down * 16 * kWidth + 4 * member;
  }

  /// Writes the transpose of an A fragment to rows of global memory, the first `rows` of which are
  /// there, by way of a corner of shared memory that is this warp's alone.
  template <int kWidth>
  __device__ void store_transposed(const uint32_t (&from)[4], Rows<kWidth> by, int row, int column,
                                   Bf16* to, int64_t pitch, int rows) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      put_shared(pair(by, row, column, i / 2, i % 2), transposed(from[i]));
    }
    __syncwarp();
    const int r = lane % 16, half = lane / 16;
    const uint4 piece = get_shared(by.at(row, column, r, half));
    if (r < rows) *reinterpret_cast<uint4*>(to + r * pitch + 8 * half) = piece;
    __syncwarp();
  }

  /// A tile of 16 x 16 in rows of one pitch as an A fragment.
  __device__ void load(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles(to, tile + lane % 16 * pitch + lane / 16 * 8);
  }
  /// Its transpose as an A fragment.
  __device__ void load_transposed(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles_transposed(to, tile + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
  }
  /// The transpose of an A fragment into a tile.
  __device__ void put_transposed(const uint32_t (&from)[4], Bf16* tile, int pitch) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Bf16* const at = tile + (group + i / 2 * 8) * pitch + i % 2 * 8 + 2 * member;
      *reinterpret_cast<uint32_t*>(at) = transposed(from[i]);
    }
  }

  /// The same, and then to rows of global memory; the tile is this warp's alone. Only the first
  /// `rows` are there.
  __device__ void store_transposed(const uint32_t (&from)[4], Bf16* tile, int pitch, Bf16* to,
                                   int64_t to_pitch, int rows) const {
    put_transposed(from, tile, pitch);
    __syncwarp();
    const int row = lane % 16, half = lane / 16 * 8;
    const uint4 piece = *reinterpret_cast<const uint4*>(tile + row * pitch + half);
    if (row < rows) *reinterpret_cast<uint4*>(to + row * to_pitch + half) = piece;
    __syncwarp();
  }
};

/// Factors of two numbers stored as logs, times one given as its log to base 2.
__device__ inline void factors_of(float (&to)[2], uint32_t logs, float first, float second) {
  constexpr float kLog2e = 1.44269504f;
  const float2 log = unpacked(logs);
  to[0] = fast_exp2(log.x * kLog2e + first);
  to[1] = fast_exp2(log.y * kLog2e + second);
}

}  // namespace regla::cuda
