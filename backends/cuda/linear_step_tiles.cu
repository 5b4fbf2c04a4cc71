#include <algorithm>

#include "backends/cuda/block.cuh"
#include "backends/cuda/chained.cuh"
#include "backends/cuda/linear_step.cuh"
#include "backends/cuda/tensor_cores.cuh"

// Products of up to 32 rows with matrices on tensor cores, at the speed of memory. A block holds
// all of x in shared memory and goes through tiles of 8 rows of the weights; its warps share out
// the inner axis, and their sums are added in order. A lane loads 16 bytes of a row at once, 8
// neighbours along the inner axis, for x as for the weights: which of them an instruction takes for
// which of its k is all the same, as long as both agree. Bytes: the weights once.
namespace regla::cuda {
namespace {

constexpr int kTileThreads = 256, kTileWarps = kTileThreads / 32;
constexpr int kTileRows = 8, kStepWidth = 32;  // of a weight; elements that four lanes load
constexpr int kAhead = 4;                      // loads of a lane that are on their way together
constexpr int kFetchedTiles = 4;               // of a block, ahead of the kernels before

/// Where the shared memory of a block lies: x [16 M, pitch], then sums [2, warps, 16 M, 8].
template <int M>
struct TileShared {
  static constexpr int kRows = 16 * M, kSums = kRows * kTileRows;

  static int pitch(int D) { return D + 8; }  // rows begin in other banks
  static size_t bytes(int D) {
    return static_cast<size_t>(kRows * pitch(D)) * 2 + size_t{2} * kTileWarps * kSums * 4;
  }
};

/// Begins to bring x, zeros in rows that do not exist.
template <int M>
__device__ void bring_rows(const StepProduct& step, __nv_bfloat16* x, int pitch) {
  const auto* from = static_cast<const __nv_bfloat16*>(step.x);
  const int pieces = step.D / kWidest;
  for (int i = static_cast<int>(threadIdx.x); i < 16 * M * pieces; i += kTileThreads) {
    const int r = i / pieces, k = i % pieces * kWidest;
    copy_ahead(x + r * pitch + k, from + int64_t{min(r, step.R - 1)} * step.D + k, r < step.R);
  }
  end_group();
}

/// Adds to c the products of 32 elements of x, from `x` on in this lane's row, with those of w.
template <int M>
__device__ void multiply_piece(float (&c)[M][4], const __nv_bfloat16* x, int pitch,
                               const uint4& w) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const uint4 upper = *reinterpret_cast<const uint4*>(x + m * 16 * pitch);
    const uint4 lower = *reinterpret_cast<const uint4*>(x + (m * 16 + 8) * pitch);
    const uint32_t first[4] = {upper.x, lower.x, upper.y, lower.y};
    const uint32_t second[4] = {upper.z, lower.z, upper.w, lower.w};
    multiply_add(c[m], first, w.x, w.y);
    multiply_add(c[m], second, w.z, w.w);
  }
}

template <int M>
__global__ __launch_bounds__(kTileThreads) void multiply_tiles(StepProduct step, int pitch,
                                                               int tiles_each) {
  using Shared = TileShared<M>;
  let_next_begin();
  auto* const x = shared_memory<__nv_bfloat16>();
  auto* const sums = reinterpret_cast<float*>(x + Shared::kRows * pitch);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int tiles = (step.N + kTileRows - 1) / kTileRows;
  const int begin = static_cast<int>(blockIdx.x) * tiles_each, end = min(begin + tiles_each, tiles);
  const int row_bytes = step.D * 2;
  const int ahead = min(min(begin + kFetchedTiles, end) * kTileRows, step.N);
  for (int n = begin * kTileRows + warp; n < ahead; n += kTileWarps) {
    const char* row = step.row(n, row_bytes);
    for (int at = lane * 128; at < row_bytes; at += 32 * 128) fetch_ahead(row + at);
  }
  await_before();
  // Turns of kAhead loads each: those of a tile, then those of the next.
  const int pieces = step.D / kStepWidth, own = (pieces - warp + kTileWarps - 1) / kTileWarps;
  const int turns = (own + kAhead - 1) / kAhead;
  uint4 next[kAhead];
  const auto load = [&](int tile, int turn) {
    const char* row = step.row(min(tile * kTileRows + lane / 4, step.N - 1), row_bytes);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int piece = warp + (turn * kAhead + a) * kTileWarps;
      next[a] = streamed_piece(row + piece * kStepWidth * 2 + lane % 4 * 16,
                               piece < pieces && tile < end);
    }
  };
  bring_rows<M>(step, x, pitch);
  load(begin, 0);
  await_groups<0>();
  __syncthreads();
  const __nv_bfloat16* const x_lane = x + lane / 4 * pitch + lane % 4 * 8;
  for (int tile = begin; tile < end; ++tile) {
    float c[M][4] = {};
    for (int turn = 0; turn < turns; ++turn) {
      uint4 w[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) w[a] = next[a];
      turn + 1 < turns ? load(tile, turn + 1) : load(tile + 1, 0);
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int piece = warp + (turn * kAhead + a) * kTileWarps;
        if (piece < pieces) multiply_piece<M>(c, x_lane + piece * kStepWidth, pitch, w[a]);
      }
    }
    float* const of_tile = sums + tile % 2 * kTileWarps * Shared::kSums;
    float* const of_warp = of_tile + warp * Shared::kSums + lane / 4 * kTileRows + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      *reinterpret_cast<float2*>(of_warp + m * 16 * kTileRows) = make_float2(c[m][0], c[m][1]);
      *reinterpret_cast<float2*>(of_warp + (m * 16 + 8) * kTileRows) =
          make_float2(c[m][2], c[m][3]);
    }
    // The sums of the tile before are read by now: those of the next go there.
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < Shared::kSums; i += kTileThreads) {
      const int r = i / kTileRows, n = tile * kTileRows + i % kTileRows;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kTileWarps; ++w) sum += of_tile[w * Shared::kSums + i];
      if (r < step.R && n < step.N) step.put(sum, step.addends(r, n));
    }
  }
}

template <int M>
bool launch_tiles(const Context& on, const StepProduct& step) {
  constexpr size_t kMostShared = size_t{220} << 10;
  const size_t shared = TileShared<M>::bytes(step.D);
  if (shared > kMostShared) return false;
  ask_for_shared(multiply_tiles<M>, shared);
  const int tiles = (step.N + kTileRows - 1) / kTileRows;
  // A second block of a multiprocessor has to bring x once more: many tiles are worth it.
  const int most = on.multiprocessors * (tiles > 16 * on.multiprocessors ? 2 : 1);
  const int each = (tiles + most - 1) / most;
  launch_chained(on, multiply_tiles<M>, dim3(static_cast<unsigned>((tiles + each - 1) / each)),
                 kTileThreads, shared, step, TileShared<M>::pitch(step.D), each);
  return true;
}

}  // namespace

bool multiplied_by_tiles(const Context& on, const LinearStepArgs& args, const StepProduct& step) {
  const bool are_narrow =
      args.x.dtype() == DType::BF16 && args.parts[0].weight.dtype() == DType::BF16;
  if (!are_narrow || args.gain || step.D % kStepWidth != 0 || step.R > 32) return false;
  return step.R <= 16 ? launch_tiles<1>(on, step) : launch_tiles<2>(on, step);
}

}  // namespace regla::cuda
