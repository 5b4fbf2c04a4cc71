#include "backends/cuda/softmax_attention_sums.cuh"

// Forward: a block has 128 queries, a warp 32 of them, and meets tiles of 64 keys and values from
// the last to the first. Per tile: scores = q k^T, the largest so far, weights = 2^(scores -
// largest), sums of values = sums * shrink + weights v. Two tiles are in shared memory, one of them
// on its way, with one barrier between two tiles.
namespace regla::cuda {
namespace {

constexpr int kTileKeys = 64;

template <int kSize>
struct ForwardRoom {
  static constexpr int kStage = 2 * kTileKeys * kPitch<kSize>;  // keys and values
  static constexpr size_t kBytes = (kTileQueries * kPitch<kSize> + 2 * kStage) * sizeof(Narrow);

  Narrow* queries = shared_memory<Narrow>();
  Narrow* ring = queries + kTileQueries * kPitch<kSize>;

  __device__ Narrow* keys(int stage) const { return ring + stage * kStage; }
  __device__ Narrow* values(int stage) const { return keys(stage) + kStage / 2; }
};

template <int kSize>
__global__ __launch_bounds__(kTileThreads, 2) void attend_tiles(TiledAttention in, TileOrder order,
                                                                Result<float> o,
                                                                Result<float> log_sum) {
  constexpr bool kHeld = kSize <= 64;
  __shared__ int room_of_warps[kTileWarps], begins[kTileQueries];
  const ForwardRoom<kSize> room;
  int head, rank;
  order.find(head, rank);
  const int t0 = (order.tiles - 1 - rank) * kTileQueries;
  const int own = static_cast<int>(threadIdx.x) / 32 * kWarpQueries;  // the warp's first query
  const Sight<2> sight(in, head, t0 + own, begins + own);
  const int last_query = min(t0 + kTileQueries, static_cast<int>(in.steps)) - 1;
  const int first = least_of_warps<kTileWarps>(sight.lowest(), room_of_warps) / kTileKeys;
  int tile = static_cast<int>(in.end(last_query) - 1) / kTileKeys;

  const TileSource<kTileQueries, kSize> queries(in.q + in.query_row(head, 0) * in.K, in.k_pitch(),
                                                static_cast<int>(in.steps), static_cast<int>(in.K));
  const TileSource<kTileKeys, kSize> keys(in.k + in.key_row(head, 0) * in.K, in.k_pitch(),
                                          static_cast<int>(in.length), static_cast<int>(in.K));
  const TileSource<kTileKeys, kSize> values(in.v + in.key_row(head, 0) * in.V, in.v_pitch(),
                                            static_cast<int>(in.length), static_cast<int>(in.V));
  const auto begin_copies = [&](int of, int stage) {
    keys.begin_copy(of * kTileKeys, room.keys(stage));
    values.begin_copy(of * kTileKeys, room.values(stage));
    end_group();
  };
  queries.begin_copy(t0, room.queries);
  begin_copies(tile, 0);
  await_groups<0>();
  __syncthreads();
  const RowFragments<2, kSize, kHeld> q(room.queries + own * kPitch<kSize>);
  TileSums<2, kSize> sums;
  for (int stage = 0; tile >= first; --tile, stage ^= 1) {
    await_groups<0>();
    __syncthreads();
    if (tile > first) begin_copies(tile - 1, stage ^ 1);
    const int s0 = tile * kTileKeys;
    if (!sight.any_sees(s0, kTileKeys)) continue;
    float scores[2][kTileKeys / 8][4] = {};
    multiply_rows(scores, q, along<kSize>(room.keys(stage)));
    if (!sight.all_see(s0, kTileKeys)) sight.hide(s0, scores);
    sums.weigh(scores, in.scale2);
    uint32_t weights[2][kTileKeys / 16][4];
    round_to_left(scores, weights);
    multiply_columns<2, kTileKeys / 8, kSize>(sums.values, weights,
                                              across<kSize>(room.values(stage)));
  }
  put_outputs(in, head, t0 + own, sums, o, log_sum);
}

}  // namespace

void attend_by_tiles(const SoftmaxAttentionArgs& args, const Tensor& o, const Tensor& log_sum) {
  if (has_warpgroups(context(o))) return attend_by_warpgroups(args, o, log_sum);
  for_tile_size(args, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    using Room = ForwardRoom<kSize>;
    const TiledAttention in(args);
    const int64_t heads = args.q.dim(0) * in.H;
    const TileOrder order(heads, (in.steps + kTileQueries - 1) / kTileQueries,
                          in.length * (in.K + in.V) * int64_t{sizeof(Narrow)});
    ask_for_shared(attend_tiles<kSize>, Room::kBytes);
    attend_tiles<kSize><<<order.blocks(), kTileThreads, Room::kBytes, context(o).stream>>>(
        in, order, Result<float>(o), Result<float>(log_sum));
    require_launched("softmax_attention");
  });
}

}  // namespace regla::cuda
