#include "backends/cuda/softmax_attention_sums.cuh"
#include "backends/cuda/warpgroup_products.cuh"

// Forward, as in softmax_attention_tiles.cu, with the products of warpgroups (sm_90a): a group has
// 64 queries. Products run behind the arithmetic: behind the sums of values of a tile follow the
// scores of the next at once, and the barrier is in the middle, between a tile's weights and its
// sums, so that nobody waits there with nothing under way. Of three stages one is on its way, one
// is read for scores and one for the sums of values.
namespace regla::cuda {
namespace {

constexpr int kStageKeys = 64, kStages = 3;

template <int kSize>
struct GroupShape {
  static constexpr int kGroups = kSize <= 64 ? 2 : 3, kBlocks = kSize <= 64 ? 2 : 1;
  static constexpr int kThreads = 128 * kGroups, kQueries = 64 * kGroups, kWarps = 4 * kGroups;
  static constexpr int kQueryTile = kQueries * kSize, kKeyTile = kStageKeys * kSize;
  static constexpr size_t kBytes = 1024 + (kQueryTile + 2 * kStages * kKeyTile) * sizeof(Narrow) +
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

/// Begins scores = q k^T of a group's queries and the keys in a tile. Both are read where they are:
/// held in registers across the loop, queries are overwritten by ptxas 13.0.
template <int kSize>
__device__ void begin_scores(const Narrow* queries, const Narrow* keys, float (&scores)[8][4]) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    const uint64_t left = panel(queries + k / 4 * GroupShape<kSize>::kQueries * 64);
    const uint64_t right = panel(keys + k / 4 * kStageKeys * 64), along = k % 4 * kAlongPanel;
    if (k == 0) multiply_rows(scores, left, right);
    if (k > 0) multiply_add_rows(scores, left + along, right + along);
  }
  end_products();
}

/// Begins sums += weights v, of the values in a tile.
template <int kSize>
__device__ void begin_values(float (&sums)[kSize / 8][4],
                             const uint32_t (&weights)[kStageKeys / 16][4], const Narrow* values) {
  begin_products();
#pragma unroll
  for (int p = 0; p < kSize / 64; ++p) {
    auto& columns = reinterpret_cast<float(&)[8][4]>(sums[8 * p]);
#pragma unroll
    for (int k = 0; k < kStageKeys / 16; ++k) {
      multiply_add_columns(columns, weights[k],
                           panel(values + p * kStageKeys * 64) + k * kDownPanel);
    }
  }
  end_products();
}

/// The keys that queries see: the first of all the block's, and those of the warp's group, from
/// what each warp knows of its own.
template <int kSize>
struct GroupSight {
  int first, from, to;

  __device__ GroupSight(const GroupRoom<kSize>& room, int warp) {
    const int group = warp / 4 * 4;
    first = from = room.lowest[group];
    to = room.highest[group];
    for (int w = group + 1; w < group + 4; ++w) {
      from = min(from, room.lowest[w]);
      to = max(to, room.highest[w]);
    }
    for (int w = 0; w < GroupShape<kSize>::kWarps; ++w) first = min(first, room.lowest[w]);
  }
  __device__ bool sees(int tile) const {
    return __any_sync(0xffffffffu, tile * kStageKeys < to && (tile + 1) * kStageKeys > from);
  }
};

template <int kSize>
__global__ __launch_bounds__(GroupShape<kSize>::kThreads,
                             GroupShape<kSize>::kBlocks) void attend_tiles(TiledAttention in,
                                                                           TileOrder order,
                                                                           Result<float> o,
                                                                           Result<float> log_sum) {
  using Shape = GroupShape<kSize>;
  const GroupRoom<kSize> room;
  int head, rank;
  order.find(head, rank);
  const int t0 = (order.tiles - 1 - rank) * Shape::kQueries;
  const int warp = warp_of_block();
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
  await_copies();
  const GroupSight group(room, warp);
  const int first = group.first / kStageKeys;
  const Narrow* const own = room.queries + warp / 4 * 64 * 64;
  float scores[1][kStageKeys / 8][4];
  TileSums<1, kSize> sums;
  if (tile > first) begin_copies(tile - 1, 1);
  receive(sums.values[0]);  // so that they are 0 before the first products begin
  if (group.sees(tile)) begin_scores<kSize>(own, room.keys(0), scores[0]);
  for (int stage = 0; tile >= first; --tile) {
    const int next = stage == kStages - 1 ? 0 : stage + 1;
    const bool sees = group.sees(tile);
    await_products();
    if (sees) {
      receive(scores[0]);
      receive(sums.values[0]);
      if (!sight.all_see(tile * kStageKeys, kStageKeys)) sight.hide(tile * kStageKeys, scores);
      sums.weigh(scores, in.scale2);
    }
    await_copies();
    if (tile - 1 > first) begin_copies(tile - 2, next == kStages - 1 ? 0 : next + 1);
    if (sees) {
      uint32_t weights[1][kStageKeys / 16][4];
      round_to_left(scores, weights);
      begin_values<kSize>(sums.values[0], weights[0], room.values(stage));
    }
    if (tile > first && group.sees(tile - 1)) {
      begin_scores<kSize>(own, room.keys(next), scores[0]);
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
