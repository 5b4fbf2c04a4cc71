#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "backends/cuda/softmax_attention.cuh"
#include "backends/cuda/tensor_cores.cuh"

// Softmax attention by tiles on tensor cores, for BF16. A block has a tile of queries (or of keys)
// of one head and goes through tiles of keys (or of queries), which copies bring into shared memory
// one ahead of the arithmetic. Its warps share those and have rows of their own, so that what is
// computed per pair stays in registers: the weights that one product leaves are the left operand of
// the next. Tiles are kSize wide; a head with fewer features or values has zeros there.
namespace regla::cuda {

using Narrow = __nv_bfloat16;

constexpr int kTileWarps = 4, kTileThreads = 32 * kTileWarps;
constexpr int kTileQueries = 128;  // of a block that has queries
constexpr int kWarpQueries = kTileQueries / kTileWarps;

/// Elements from row to row in shared memory: an odd number of 16 bytes, so that eight rows of a
/// fragment lie in different banks.
template <int kSize>
constexpr int kPitch = kSize + 8;

/// Queries, keys and values, rows of one head `k_pitch` and `v_pitch` elements apart.
struct TiledAttention : AttentionSizes {
  const Narrow *q, *k, *v;
  float scale, scale2;  // of scores, for exponentials to base e and 2

  explicit TiledAttention(const SoftmaxAttentionArgs& args)
      : AttentionSizes(args),
        q(static_cast<const Narrow*>(args.q.raw())),
        k(static_cast<const Narrow*>(args.k.raw())),
        v(static_cast<const Narrow*>(args.v.raw())),
        scale(static_cast<float>(args.scale)),
        scale2(scale * kLog2E) {}

  __host__ __device__ int64_t k_pitch() const { return H * K; }
  __host__ __device__ int64_t v_pitch() const { return H * V; }
};

/// The widest tiles for which a device's blocks have room.
inline int64_t widest_tiles(const Context& on) {
  constexpr int kRoom = 105 << 10;  // of those of 128
  int bytes = 0;
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, on.device.index),
          "ask how much shared memory there is");
  return bytes >= kRoom ? 128 : 64;
}

/// Whether tiles take it: rows of whole 16 bytes, in every tensor, for which they are wide enough.
inline bool are_tileable(const Context& on, const SoftmaxAttentionArgs& args,
                         std::initializer_list<const Tensor*> others) {
  constexpr int64_t kMostRows = int64_t{1} << 30;
  if (args.q.dtype() != DType::BF16 || args.scale <= 0) return false;
  const auto begins_well = [](const Tensor* x) {
    return !x->defined() || reinterpret_cast<uintptr_t>(x->raw()) % 16 == 0;
  };
  const auto fits = [&](const Tensor& x) {
    return x.dim(3) % 8 == 0 && x.dim(3) <= widest_tiles(on) && x.dim(1) <= kMostRows &&
           begins_well(&x);
  };
  return fits(args.q) && fits(args.k) && fits(args.v) &&
         std::all_of(others.begin(), others.end(), begins_well);
}

/// Calls `f` with the width of tiles as a type.
template <class F>
void for_tile_size(const SoftmaxAttentionArgs& args, F&& f) {
  if (args.q.dim(3) <= 64 && args.v.dim(3) <= 64) return f(std::integral_constant<int, 64>{});
  f(std::integral_constant<int, 128>{});
}

/// Which tile of which head a block has. Blocks start in the order of their numbers: heads go in
/// groups whose other side stays in the L2 cache while all tiles of the group pass, those with the
/// most work first.
struct TileOrder {
  int heads, tiles, group;

  TileOrder(int64_t heads, int64_t tiles, int64_t bytes_of_head)
      : heads(static_cast<int>(heads)), tiles(static_cast<int>(tiles)) {
    constexpr int64_t kCached = int64_t{16} << 20;
    group = static_cast<int>(std::clamp<int64_t>(kCached / bytes_of_head, 1, heads));
  }
  unsigned blocks() const { return static_cast<unsigned>(heads) * static_cast<unsigned>(tiles); }

  /// `rank`: 0 for the tile of a head that comes first.
  __device__ void find(int& head, int& rank) const {
    const int block = static_cast<int>(blockIdx.x), start = block / (group * tiles) * group;
    const int count = min(group, heads - start), rest = block - start * tiles;
    rank = rest / count;
    head = start + rest % count;
  }
};

/// A tile of rows in shared memory, for fragments that a warp loads: 16-byte pieces of a row side
/// by side, rows kPitch elements apart.
template <int kSize>
struct PaddedTile {
  static constexpr int kStep = kPitch<kSize>;  // from row to row
  static __device__ int offset(int row, int piece) { return row * kStep + piece * 8; }
};

/// Copies tiles of kRows rows out of rows [0, rows) of `width` elements of a head, with kThreads
/// threads, all of a block; zeros where there is nothing.
template <int kRows, int kSize, int kThreads = kTileThreads, class Tile = PaddedTile<kSize>>
class TileSource {
 public:
  __device__ TileSource(const Narrow* head, int64_t pitch, int rows, int width)
      : rows_(own_piece() * 8 < width ? rows - own_row() : 0), pitch_(static_cast<int>(pitch)) {
    from_ = head + own_row() * pitch + (own_piece() * 8 < width ? own_piece() * 8 : 0);
  }

  __device__ void begin_copy(int row0, Narrow* to) const {
    const Narrow* from = from_ + int64_t{row0} * pitch_;
    Narrow* const at = to + Tile::offset(own_row(), own_piece());
#pragma unroll
    for (int r = 0; r < kRows; r += kAtOnce) {
      if (kRows % kAtOnce != 0 && own_row() + r >= kRows) break;
      copy_ahead(at + r * Tile::kStep, from + int64_t{r} * pitch_, row0 + r < rows_);
    }
  }

 private:
  static constexpr int kPieces = kSize / 8, kAtOnce = kThreads / kPieces;
  static_assert(kAtOnce % 8 == 0);  // so that a step keeps the place among eight rows
  static __device__ int own_row() { return static_cast<int>(threadIdx.x) / kPieces; }
  static __device__ int own_piece() { return static_cast<int>(threadIdx.x) % kPieces; }

  const Narrow* from_;
  int rows_;  // from this thread's first one on; none outside of the width
  int pitch_;
};

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % 32; }

/// Where this lane begins to read fragments of a tile: of its rows as a left operand, or of its
/// columns as a right one (transposed) ...
template <int kSize>
__device__ const Narrow* across(const Narrow* tile) {
  return tile + lane_of_warp() % 16 * kPitch<kSize> + lane_of_warp() / 16 * 8;
}
/// ... and of its rows as a right one.
template <int kSize>
__device__ const Narrow* along(const Narrow* tile) {
  const int lane = lane_of_warp();
  return tile + (lane % 8 + lane / 16 * 8) * kPitch<kSize> + lane / 8 % 2 * 8;
}

/// 16 kM rows of a tile as a left operand, in registers or read when they are wanted.
template <int kM, int kSize, bool kHeld>
class RowFragments {
 public:
  __device__ explicit RowFragments(const Narrow* tile) : at_(across<kSize>(tile)) {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int n = 0; n < kSize / 16; ++n) read(i, n, held_[i][n]);
      }
    }
  }
  __device__ void get(int i, int n, uint32_t (&a)[4]) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int r = 0; r < 4; ++r) a[r] = held_[i][n][r];
    } else {
      read(i, n, a);
    }
  }

 private:
  __device__ void read(int i, int n, uint32_t (&a)[4]) const {
    load_tiles(a, at_ + i * 16 * kPitch<kSize> + n * 16);
  }

  const Narrow* at_;
  uint32_t held_[kHeld ? kM : 1][kHeld ? kSize / 16 : 1][4];
};

/// c += a b^T, b the 8 kN rows that `b` is `along`
template <int kM, int kN, int kSize, bool kHeld>
__device__ void multiply_rows(float (&c)[kM][kN][4], const RowFragments<kM, kSize, kHeld>& a,
                              const Narrow* b) {
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    uint32_t left[kM][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) a.get(i, k, left[i]);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t right[4];
      load_tiles(right, b + n * 8 * kPitch<kSize> + k * 16);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        multiply_add(c[i][n], left[i], right[0], right[1]);
        multiply_add(c[i][n + 1], left[i], right[2], right[3]);
      }
    }
  }
}

/// c += a b, a the rounded C of another product and b the 8 kN rows that `b` is `across`
template <int kM, int kN, int kSize>
__device__ void multiply_columns(float (&c)[kM][kSize / 8][4], const uint32_t (&a)[kM][kN / 2][4],
                                 const Narrow* b) {
#pragma unroll
  for (int k = 0; k < kN / 2; ++k) {
#pragma unroll
    for (int n = 0; n < kSize / 8; n += 2) {
      uint32_t right[4];
      load_tiles_transposed(right, b + k * 16 * kPitch<kSize> + n * 8);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        multiply_add(c[i][n], a[i][k], right[0], right[1]);
        multiply_add(c[i][n + 1], a[i][k], right[2], right[3]);
      }
    }
  }
}

/// The C of a product as the left operand of the next.
template <int kM, int kN>
__device__ void round_to_left(const float (&c)[kM][kN][4], uint32_t (&a)[kM][kN / 2][4]) {
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      a[i][n / 2][n % 2 * 2] = packed(c[i][n][0], c[i][n][1]);
      a[i][n / 2][n % 2 * 2 + 1] = packed(c[i][n][2], c[i][n][3]);
    }
  }
}

/// Rows [0, rows) of a warp's sums, times the factor of their row, go to elements `start` and on,
/// `width` of each row. Two lanes exchange halves, so that each writes four neighbours.
template <int kM, int kN>
__device__ void put_rows(const Result<float>& to, int64_t start, int64_t pitch, int rows, int width,
                         const float (&c)[kM][kN][4], const float (&factor)[kM][2]) {
  const int lane = lane_of_warp(), half = lane % 2;
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int row = 16 * i + 8 * half + lane / 4;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      float low[2], high[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        low[e] = c[i][n][e] * factor[i][0];
        high[e] = c[i][n][2 + e] * factor[i][1];
        const float other = __shfl_xor_sync(0xffffffffu, half == 0 ? high[e] : low[e], 1);
        (half == 0 ? high[e] : low[e]) = other;
      }
      const int column = 8 * n + lane % 4 / 2 * 4;
      const float v[kWide] = {low[0], low[1], high[0], high[1]};
      if (row < rows && column < width) to.put(start + row * pitch + column, v);
    }
  }
}

/// The keys that a warp's 16 kM queries see. Rows of a lane are 16 i + 8 h + lane / 4.
template <int kM>
class Sight {
 public:
  /// `begins` has room for a number of each of the warp's queries.
  __device__ Sight(const TiledAttention& in, int head, int t0, int* begins)
      : begins_(begins), end_(static_cast<int>(in.end(t0))) {
    const int row = lane_of_warp() % (16 * kM);
    const auto t = min(int64_t{t0} + row, in.steps - 1);
    const int begin = static_cast<int>(in.begin(head, t)), end = static_cast<int>(in.end(t));
    begins[row] = begin;
    lowest_ = __reduce_min_sync(0xffffffffu, begin);
    highest_ = __reduce_max_sync(0xffffffffu, end);
    all_from_ = __reduce_max_sync(0xffffffffu, begin);
    __syncwarp();
  }
  /// The first key that any of them sees, and the one after the last.
  __device__ int lowest() const { return lowest_; }
  __device__ int highest() const { return highest_; }
  __device__ bool any_sees(int s0, int count) const {
    return s0 < highest_ && s0 + count > lowest_;
  }
  __device__ bool all_see(int s0, int count) const { return s0 >= all_from_ && s0 + count <= end_; }
  /// Scores of keys s0 and on become -infinity where they are not seen.
  template <int kN>
  __device__ void hide(int s0, float (&scores)[kM][kN][4]) const {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = 16 * i + 8 * h + lane_of_warp() / 4, begin = begins_[row];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int s = s0 + 8 * n + lane_of_warp() % 4 * 2 + e;
            const bool sees = s >= begin && s < end_ + row;
            if (!sees) scores[i][n][2 * h + e] = -std::numeric_limits<float>::infinity();
          }
        }
      }
    }
  }

 private:
  const int* begins_;
  int end_, lowest_, highest_, all_from_;  // end_ of the first query
};

/// The least of the numbers of kWarps warps, on all threads; `room` has a place for each.
template <int kWarps>
__device__ int least_of_warps(int x, int* room) {
  if (lane_of_warp() == 0) room[threadIdx.x / 32] = x;
  __syncthreads();
  int least = room[0];
  for (int w = 1; w < kWarps; ++w) least = min(least, room[w]);
  return least;
}

/// Whether a device has the products of warpgroups, for which there are kernels of their own.
inline bool has_warpgroups(const Context& on) {
  int major = 0;
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, on.device.index),
          "ask what the GPU is");
  return major == 9;
}

/// Softmax attention by tiles, and its gradients.
void attend_by_tiles(const SoftmaxAttentionArgs& args, const Tensor& o, const Tensor& log_sum);
void reverse_by_tiles(const SoftmaxAttentionArgs& args, const Tensor& o, const Tensor& log_sum,
                      const Tensor& d_o, const Sink& d_q, const Sink& d_k, const Sink& d_v);

/// The same by the products of warpgroups.
void attend_by_warpgroups(const SoftmaxAttentionArgs& args, const Tensor& o, const Tensor& log_sum);

}  // namespace regla::cuda
