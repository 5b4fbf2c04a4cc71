#include "backends/cuda/softmax_attention_sums.cuh"
#include "backends/cuda/warpgroup_products.cuh"

// Forward, as in softmax_attention_tiles.cu, with the products of warpgroups (sm_90a): a group has
// 64 queries in registers, and reads keys and values from shared memory without loading fragments.
// Of three stages one is on its way, one is read for scores and one may still be read for the sums
// of values, which run into the next tile's scores.
namespace regla::cuda {
namespace {

constexpr int kStageKeys = 64, kStages = 3;

template <int kSize>
struct GroupShape {
  static constexpr int kGroups = kSize <= 64 ? 2 : 3, kBlocks = kSize <= 64 ? 2 : 1;
  static constexpr int kThreads = 128 * kGroups, kQueries = 64 * kGroups, kWarps = 4 * kGroups;
  static constexpr int kQueryTile = kQueries * kSize, kKeyTile = kStageKeys * kSize;
  static constexpr size_t kBytes =
      1024 + (kQueryTile + 2 * kStages * kKeyTile) * sizeof(Narrow) +
      (kQueries + 2 * kWarps) * sizeof(int);
};

template <int kSize>
struct GroupRoom {
  using Shape = GroupShape<kSize>;
  Narrow *queries, *ring;
  int *begins, *lowest, *highest;  // of queries, of warps

  __device__ GroupRoom() {
    auto* const bytes = shared_memory<unsigned char>();
    queries = reinterpret_cast<Narrow*>(bytes + (1024 - shared_address(bytes) % 1024) % 1024);
    ring = queries + Shape::kQueryTile;
    begins = reinterpret_cast<int*>(ring + 2 * kStages * Shape::kKeyTile);
    lowest = begins + Shape::kQueries;
    highest = lowest + Shape::kWarps;
  }
  __device__ Narrow* keys(int stage) const { return ring + stage * 2 * Shape::kKeyTile; }
  __device__ Narrow* values(int stage) const { return keys(stage) + Shape::kKeyTile; }
};

/// scores = q k^T of a group's queries and the keys in a tile. Both are read where they are: held in
/// registers across the loop, queries are overwritten by ptxas 13.0.
template <int kSize>
__device__ void multiply_rows(const Narrow* queries, const Narrow* keys, float (&scores)[8][4]) {
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    multiply_add(scores,
                 panel(queries + k / 4 * GroupShape<kSize>::kQueries * 64) + k % 4 * kAlongPanel,
                 panel(keys + k / 4 * kStageKeys * 64) + k % 4 * kAlongPanel, k > 0);
  }
}

/// The sums of a panel's 64 columns among those of all.
template <int kSize>
__device__ float (&columns(float (&sums)[kSize / 8][4], int panel))[8][4] {
  return reinterpret_cast<float(&)[8][4]>(sums[8 * panel]);
}

template <int kSize>
__global__ __launch_bounds__(GroupShape<kSize>::kThreads, GroupShape<kSize>::kBlocks) void
attend_tiles(TiledAttention in, TileOrder order, Result<float> o, Result<float> log_sum) {
  using Shape = GroupShape<kSize>;
  const GroupRoom<kSize> room;
  int head, rank;
  order.find(head, rank);
  const int t0 = (order.tiles - 1 - rank) * Shape::kQueries;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const Sight<1> sight(in, head, t0 + 16 * warp, room.begins + 16 * warp);
  room.lowest[warp] = sight.lowest();
  room.highest[warp] = sight.highest();

  const auto K = static_cast<int>(in.K), V = static_cast<int>(in.V);
  const auto steps = static_cast<int>(in.steps), length = static_cast<int>(in.length);
  constexpr int kThreads = Shape::kThreads;
  using KeySource = TileSource<kStageKeys, kSize, kThreads, PanelTile<kStageKeys>>;
  const KeySource keys(in.k + in.key_row(head, 0) * K, in.k_pitch(), length, K);
  const KeySource values(in.v + in.key_row(head, 0) * V, in.v_pitch(), length, V);
  const auto begin_copies = [&](int of, int stage) {
    keys.begin_copy(of * kStageKeys, room.keys(stage));
    values.begin_copy(of * kStageKeys, room.values(stage));
    end_group();
  };
  TileSource<Shape::kQueries, kSize, kThreads, PanelTile<Shape::kQueries>>(
      in.q + in.query_row(head, 0) * K, in.k_pitch(), steps, K)
      .begin_copy(t0, room.queries);
  int tile = static_cast<int>(in.end(min(t0 + Shape::kQueries, steps) - 1) - 1) / kStageKeys;
  begin_copies(tile, 0);
  await_groups<0>();
  show_to_products();
  __syncthreads();
  int first = room.lowest[0], from = room.lowest[warp / 4 * 4], to = room.highest[warp / 4 * 4];
  for (int w = 1; w < Shape::kWarps; ++w) first = min(first, room.lowest[w]);
  for (int w = 1; w < 4; ++w) {
    from = min(from, room.lowest[warp / 4 * 4 + w]);
    to = max(to, room.highest[warp / 4 * 4 + w]);
  }
  const Narrow* const own = room.queries + warp / 4 * 64 * 64;
  TileSums<1, kSize> sums;
  for (int stage = 0; tile >= first / kStageKeys; --tile) {
    await_groups<0>();
    show_to_products();
    __syncthreads();
    const int next = stage == kStages - 1 ? 0 : stage + 1;
    if (tile > first / kStageKeys) begin_copies(tile - 1, next);
    const int s0 = tile * kStageKeys;
    if (__any_sync(0xffffffffu, s0 < to && s0 + kStageKeys > from)) {
      float scores[1][kStageKeys / 8][4];
      begin_products();
      multiply_rows<kSize>(own, room.keys(stage), scores[0]);
      end_products();
      await_products();
      receive(scores[0]);
      receive(sums.values[0]);
      if (!sight.all_see(s0, kStageKeys)) sight.hide(s0, scores);
      sums.weigh(scores, in.scale2);
      uint32_t weights[1][kStageKeys / 16][4];
      round_to_left(scores, weights);
      begin_products();
#pragma unroll
      for (int p = 0; p < kSize / 64; ++p) {
#pragma unroll
        for (int k = 0; k < kStageKeys / 16; ++k) {
          multiply_add<true>(columns<kSize>(sums.values[0], p), weights[0][k],
                             panel(room.values(stage) + p * kStageKeys * 64) + k * kDownPanel);
        }
      }
      end_products();
    } else {
      await_products();  // whose stage is the next to be written over
    }
    stage = next;
  }
  await_products();
  receive(sums.values[0]);
  put_outputs(in, head, t0 + 16 * warp, sums, o, log_sum);
}

}  // namespace

void attend_by_warpgroups(const SoftmaxAttentionArgs& args, const Tensor& o,
                          const Tensor& log_sum) {
  for_tile_size(args, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    using Shape = GroupShape<kSize>;
    const TiledAttention in(args);
    const TileOrder order(args.q.dim(0) * in.H, (in.steps + Shape::kQueries - 1) / Shape::kQueries,
                          in.length * (in.K + in.V) * int64_t{sizeof(Narrow)});
    ask_for_shared(attend_tiles<kSize>, Shape::kBytes);
    attend_tiles<kSize><<<order.blocks(), Shape::kThreads, Shape::kBytes, context(o).stream>>>(
        in, order, Result<float>(o), Result<float>(log_sum));
    require_launched("softmax_attention");
  });
}

}  // namespace regla::cuda
