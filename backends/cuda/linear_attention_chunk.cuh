#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/tensor_cores.cuh"

// What a block holds of a tile of 32 tokens in shared memory, and how it comes there.
namespace regla::cuda {

using Bf16 = __nv_bfloat16;

constexpr int kChunkTokens = 64;  // what `kept` has a state for
constexpr int kTileTokens = 32;
constexpr int kWarps = 4, kColumns = 16 * kWarps;  // of a state, per block and for each warp
constexpr int kTileThreads = 32 * kWarps;

inline const Bf16* narrow(const Tensor& x) {
  return static_cast<const Bf16*>(storage_of<float>(x));
}

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
  int turns, chunks, H, K, V;
  int ranks;    // blocks of a cluster, which take turns at the tiles of a head
  int buffers;  // turns in shared memory: 2, or 1 where there is no room

  __device__ bool has_scalars() const { return log_s != nullptr || reset != nullptr; }
};

/// A head: its first token is row `row` of tensors [B, T, H, ...], token `token` of [B, T].
struct Head {
  int n, H;
  int64_t row, token;

  __device__ Head(int number, int heads, int64_t steps)
      : n(number),
        H(heads),
        row(number / heads * steps * heads + number % heads),
        token(number / heads * steps) {}

  /// The element where token t begins in tensors [B, T, H, size].
  __device__ int64_t at(int64_t t, int size) const { return row * size + t * (H * size); }
};

/// The log to base 2 of the factor that all of a token's decays have.
__device__ inline float scalar_log2(bool resets, float log) {
  return resets ? -INFINITY : log * kLog2E;
}

/// Begins to copy `kRows` rows of `kWidth` elements by `kThreads` threads; the first `there`
/// elements of the first `rows` rows exist, the rest becomes 0. Rows in shared memory have 16 bytes
/// more than they need: eight of them, one below the other, meet every bank once.
template <int kWidth, int kRows, int kThreads, int kPitch = kWidth + 8>
__device__ void copy_rows(Bf16* to, const Bf16* from, int stride, int there, int rows, int thread) {
  constexpr int kPieces = kWidth / 8, kStep = kThreads / kPieces;
  const int row = thread / kPieces, at = thread % kPieces * 8;
  const int end = at < there ? rows : 0;
  to += row * kPitch + at;
  from += int64_t{row} * stride + at;
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    copy_ahead(to + i * kStep * kPitch, from + int64_t{i * kStep} * stride, row + i * kStep < end);
  }
}

/// A tile in shared memory.
template <int K, bool kKey>
struct Tile {
  static constexpr int kPitch = K + 8, kValuePitch = kColumns + 8;
  static constexpr size_t kBytes =
      kTileTokens *
      (((kKey ? 3 : 2) * kPitch + 2 * kValuePitch) * sizeof(Bf16) + 2 * sizeof(float));
  Bf16 *q, *k, *log_a;  // [32, kPitch]; features from p.K on are 0
  Bf16 *u, *log_b;      // [32, kValuePitch]
  float* log_s;         // [32]
  int32_t* reset;       // [32]

  __device__ explicit Tile(unsigned char* memory) {
    q = reinterpret_cast<Bf16*>(memory);
    k = q + kTileTokens * kPitch;
    log_a = k + (kKey ? kTileTokens * kPitch : 0);
    u = log_a + kTileTokens * kPitch;
    log_b = u + kTileTokens * kValuePitch;
    log_s = reinterpret_cast<float*>(log_b + kTileTokens * kValuePitch);
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
    const int64_t t0 = int64_t{number} * kTileTokens, row = head.at(t0, 1);
    const int tokens = static_cast<int>(min(p.steps - t0, int64_t{kTileTokens}));
    const int t = static_cast<int>(threadIdx.x);
    const auto copy_keys = [&](Bf16* to, const Bf16* from) {
      copy_rows<K, kTileTokens, kTileThreads>(to, from + row * p.K, p.H * p.K, p.K, tokens, t);
    };
    const auto copy_values = [&](Bf16* to, const Bf16* from) {
      copy_rows<kColumns, kTileTokens, kTileThreads>(to, from + row * p.V + first_column, p.H * p.V,
                                                     p.V - first_column, tokens, t);
    };
    copy_keys(q, p.q);
    copy_keys(k, p.k);
    if (kKey) copy_keys(log_a, p.log_a);
    copy_values(u, p.u);
    if (p.log_b != nullptr) copy_values(log_b, p.log_b);
    if (p.has_scalars() && t < kTileTokens) {
      if (p.log_s != nullptr) copy_word_ahead(log_s + t, p.log_s + row + t * p.H, t < tokens);
      if (p.reset != nullptr) {
        copy_word_ahead(reset + t, p.reset + head.token + t0 + t, t < tokens);
      }
    }
  }

  /// Of all that has one factor for token t.
  __device__ float scalar_log2(int t) const { return cuda::scalar_log2(reset[t] != 0, log_s[t]); }
};

/// What a lane is in its warp's fragments.
struct Lane {
  int lane, group, member;  // lane / 4, lane % 4

  __device__ Lane() {
    // Asked for once: the compiler would rather ask again and again than spend a register.
    uint32_t thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    lane = static_cast<int>(thread % 32);
    group = lane / 4;
    member = lane % 4;
  }

  /// A tile of 16 x 16 as an A fragment.
  __device__ void load(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles(to, tile + lane % 16 * pitch + lane / 16 * 8);
  }
  /// Its transpose as an A fragment.
  __device__ void load_transposed(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles_transposed(to, tile + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
  }
  /// As two B fragments, registers 0 and 1 for its first 8 columns, 2 and 3 for the others.
  __device__ void load_as_right(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles_transposed(to, tile + lane % 16 * pitch + lane / 16 * 8);
  }
  /// Its transpose as two B fragments, registers 0 and 1 for its first 8 rows.
  __device__ void load_as_right_transposed(uint32_t (&to)[4], const Bf16* tile, int pitch) const {
    load_tiles(to, tile + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
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
  const float2 log = unpacked(logs);
  to[0] = fast_exp2(log.x * kLog2E + first);
  to[1] = fast_exp2(log.y * kLog2E + second);
}

}  // namespace regla::cuda
