#include "backends/cuda/softmax_attention_tiles_backward.cuh"
#include "backends/cuda/warpgroup_products.cuh"

// Backward, as in softmax_attention_tiles_backward.cu, with the products of warpgroups (sm_90a) and
// heads of up to 64: a group has 64 queries (or keys) and meets 64 keys (or queries) at a time.
// Products run behind the arithmetic: behind the last sums of a tile follow scores and d_weights of
// the next at once, while another group is at its arithmetic. The barrier is between a tile's
// arithmetic and its sums. Of three stages one is on its way, one is read for the next tile and one
// for this.
namespace regla::cuda {
namespace {

constexpr int kStageRows = 64, kStages = 3, kSize = 64;
constexpr int kPanel = kStageRows * kSize;  // elements

template <int kGroups>
struct GroupRoom {
  static constexpr int kOwn = kGroups * kPanel;
  static constexpr size_t kBytes = 1024 + (2 * kOwn + 2 * kStages * kPanel) * sizeof(Narrow) +
                                   kStages * 3 * kStageRows * sizeof(float);
  Narrow *own_k, *own_v;  // rows as wide as keys: q, or k; and as values: d_o, or v

  __device__ GroupRoom() {
    auto* const bytes = shared_memory<unsigned char>();
    own_k = reinterpret_cast<Narrow*>(bytes + (1024 - shared_address(bytes) % 1024) % 1024);
    own_v = own_k + kOwn;
  }
  __device__ Narrow* stage_k(int stage) const { return own_v + kOwn + stage * 2 * kPanel; }
  __device__ Narrow* stage_v(int stage) const { return stage_k(stage) + kPanel; }
  /// Of a stage's queries: log-sums, D and first keys.
  __device__ float* shift(int stage) const {
    return reinterpret_cast<float*>(stage_k(kStages)) + stage * 3 * kStageRows;
  }
  __device__ float* dots(int stage) const { return shift(stage) + kStageRows; }
  __device__ int32_t* begin(int stage) const {
    return reinterpret_cast<int32_t*>(shift(stage) + 2 * kStageRows);
  }
};

/// Begins c = a group's own rows times those of a panel. Both are read where they are: held in
/// registers across the loop, a left operand is overwritten by ptxas 13.0.
__device__ inline void begin_rows(float (&c)[8][4], const Narrow* own, const Narrow* rows) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    if (k == 0) multiply_rows(c, panel(own), panel(rows));
    if (k > 0) multiply_add_rows(c, panel(own) + k * kAlongPanel, panel(rows) + k * kAlongPanel);
  }
  end_products();
}
/// Begins c += a product, rounded, times the columns of a panel.
__device__ inline void begin_columns(float (&c)[8][4],
                                     const uint32_t (&left)[1][kStageRows / 16][4],
                                     const Narrow* rows) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kStageRows / 16; ++k) {
    multiply_add_columns(c, left[0][k], panel(rows) + k * kDownPanel);
  }
  end_products();
}

template <int kGroups>
using OwnSource = TileSource<64 * kGroups, kSize, 128 * kGroups, PanelTile<64 * kGroups>>;
template <int kGroups>
using StageSource = TileSource<kStageRows, kSize, 128 * kGroups, PanelTile<kStageRows>>;

// ---- d_q -------------------------------------------------------------------------------------

/// d_weights become gradients of scores, by rows of which this lane has two.
__device__ inline void find_gradients(float scale2, const float (&shift)[2], const float (&dots)[2],
                                      const float (&scores)[1][8][4], float (&d_weights)[1][8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float weight = fast_exp2(fmaf(scores[0][n][e], scale2, -shift[e / 2]));
      d_weights[0][n][e] = weight * (d_weights[0][n][e] - dots[e / 2]);
    }
  }
}

template <int kGroups>
__global__ __launch_bounds__(128 * kGroups,
                             1) void reverse_query_tiles(TiledAttention in, TileOrder order,
                                                         BackwardTiles g, Result<float> d_q) {
  constexpr int kQueries = 64 * kGroups, kWarps = 4 * kGroups;
  __shared__ int begins[kQueries], lowest[kWarps];
  const GroupRoom<kGroups> room;
  int head, rank;
  order.find(head, rank);
  const int t0 = (order.tiles - 1 - rank) * kQueries;
  const int warp = warp_of_block(), own = 16 * warp;
  const Sight<1> sight(in, head, t0 + own, begins + own);
  lowest[warp] = sight.lowest();

  const auto K = static_cast<int>(in.K), V = static_cast<int>(in.V);
  const auto steps = static_cast<int>(in.steps), length = static_cast<int>(in.length);
  const int64_t row = in.query_row(head, 0), key = in.key_row(head, 0);
  const StageSource<kGroups> keys(in.k + key * K, in.k_pitch(), length, K);
  const StageSource<kGroups> values(in.v + key * V, in.v_pitch(), length, V);
  const auto begin_copies = [&](int of, int stage) {
    keys.begin_copy(of * kStageRows, room.stage_k(stage));
    values.begin_copy(of * kStageRows, room.stage_v(stage));
    end_group();
  };
  OwnSource<kGroups>(in.q + row * K, in.k_pitch(), steps, K).begin_copy(t0, room.own_k);
  OwnSource<kGroups>(g.d_o + row * V, in.v_pitch(), steps, V).begin_copy(t0, room.own_v);
  int tile = static_cast<int>(in.end(min(t0 + kQueries, steps) - 1) - 1) / kStageRows;
  begin_copies(tile, 0);
  await_copies();
  int first = lowest[0];
  for (int w = 1; w < kWarps; ++w) first = min(first, lowest[w]);
  first /= kStageRows;
  const Narrow* const q = room.own_k + warp / 4 * kPanel;
  const Narrow* const d_o = room.own_v + warp / 4 * kPanel;
  float sums[1][8][4] = {}, scores[1][8][4], d_weights[1][8][4], shift[2], dots[2];
  for (int h = 0; h < 2; ++h) {
    const int64_t at = int64_t{head} * g.padded + t0 + own + 8 * h + lane_of_warp() / 4;
    shift[h] = g.shift[at];
    dots[h] = g.dots[at];
  }
  if (tile > first) begin_copies(tile - 1, 1);
  receive(sums[0]);  // so that they are 0 before the first products begin
  begin_rows(scores[0], q, room.stage_k(0));
  begin_rows(d_weights[0], d_o, room.stage_v(0));
  for (int stage = 0; tile >= first; --tile) {
    const int next = stage == kStages - 1 ? 0 : stage + 1, s0 = tile * kStageRows;
    await_products();
    receive(scores[0]);
    receive(d_weights[0]);
    if (!sight.all_see(s0, kStageRows)) sight.hide(s0, scores);
    find_gradients(in.scale2, shift, dots, scores, d_weights);
    uint32_t left[1][kStageRows / 16][4];
    round_to_left(d_weights, left);
    await_copies();
    if (tile - 1 > first) begin_copies(tile - 2, next == kStages - 1 ? 0 : next + 1);
    begin_columns(sums[0], left, room.stage_k(stage));
    if (tile > first) {
      begin_rows(scores[0], q, room.stage_k(next));
      begin_rows(d_weights[0], d_o, room.stage_v(next));
    }
    stage = next;
  }
  await_products();
  receive(sums[0]);
  const float factor[1][2] = {{in.scale, in.scale}};
  put_rows(d_q, in.query_row(head, t0 + own) * K, in.k_pitch(), steps - t0 - own, K, sums, factor);
}

// ---- d_k and d_v -----------------------------------------------------------------------------

/// Scores become weights, and d_weights gradients of scores, by columns of queries.
__device__ inline void find_gradients(float scale2, const QueryNumbers& of,
                                      float (&scores)[1][8][4], float (&d_weights)[1][8][4]) {
  const int column = lane_of_warp() % 4 * 2;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 shift = *reinterpret_cast<const float2*>(of.shift + 8 * n + column);
    const float2 dots = *reinterpret_cast<const float2*>(of.dots + 8 * n + column);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool is_first = e % 2 == 0;
      scores[0][n][e] = fast_exp2(fmaf(scores[0][n][e], scale2, is_first ? -shift.x : -shift.y));
      d_weights[0][n][e] = scores[0][n][e] * (d_weights[0][n][e] - (is_first ? dots.x : dots.y));
    }
  }
}

/// Whether all queries of a tile see this warp's keys, s0 and on.
__device__ inline bool all_see(const QueryNumbers& of, int s0) {
  bool all = true;
  for (int t = lane_of_warp(); t < kTileRows; t += 32) {
    all &= of.begin[t] <= s0 && of.end + t >= s0 + 16;
  }
  return __all_sync(0xffffffffu, all);
}

template <int kGroups>
__global__ __launch_bounds__(128 * kGroups,
                             1) void reverse_key_tiles(TiledAttention in, TileOrder order,
                                                       BackwardTiles g, Result<float> d_k,
                                                       Result<float> d_v) {
  constexpr int kKeys = 64 * kGroups;
  __shared__ int room_of_warps[4 * kGroups];
  const GroupRoom<kGroups> room;
  int head, rank;
  order.find(head, rank);
  const int s0 = rank * kKeys, warp = warp_of_block(), own = 16 * warp;
  const auto past = static_cast<int>(in.length - in.steps), length = static_cast<int>(in.length);
  int tile = max(0, s0 - past) / kTileRows;
  const int last = last_tile_that_sees<128 * kGroups>(in, g, head, tile, s0 + kKeys, room_of_warps);

  const auto K = static_cast<int>(in.K), V = static_cast<int>(in.V);
  const auto steps = static_cast<int>(in.steps);
  const int64_t row = in.query_row(head, 0), key = in.key_row(head, 0);
  const StageSource<kGroups> queries(in.q + row * K, in.k_pitch(), steps, K);
  const StageSource<kGroups> outputs(g.d_o + row * V, in.v_pitch(), steps, V);
  const int64_t b = head / in.H;
  const auto begin_copies = [&](int of, int stage) {
    queries.begin_copy(of * kTileRows, room.stage_k(stage));
    outputs.begin_copy(of * kTileRows, room.stage_v(stage));
    copy_numbers_ahead(g, b, head, of, room, stage);
    end_group();
  };
  OwnSource<kGroups>(in.k + key * K, in.k_pitch(), length, K).begin_copy(s0, room.own_k);
  OwnSource<kGroups>(in.v + key * V, in.v_pitch(), length, V).begin_copy(s0, room.own_v);
  if (tile <= last) begin_copies(tile, 0);
  const Narrow* const k = room.own_k + warp / 4 * kPanel;
  const Narrow* const v = room.own_v + warp / 4 * kPanel;
  float sums_k[1][8][4] = {}, sums_v[1][8][4] = {}, scores[1][8][4], d_weights[1][8][4];
  const int from = s0 + own;
  await_copies();
  if (tile < last) begin_copies(tile + 1, 1);
  receive(sums_k[0]);  // so that they are 0 before the first products begin
  receive(sums_v[0]);
  if (tile <= last) {
    begin_rows(scores[0], k, room.stage_k(0));
    begin_rows(d_weights[0], v, room.stage_v(0));
  }
  for (int stage = 0; tile <= last; ++tile) {
    const int next = stage == kStages - 1 ? 0 : stage + 1;
    const QueryNumbers of = {room.shift(stage), room.dots(stage), room.begin(stage),
                             past + tile * kTileRows + 1};
    const bool is_seen = all_see(of, from);
    await_products();
    receive(scores[0]);
    receive(d_weights[0]);
    if (!is_seen) of.hide(from, scores);
    find_gradients(in.scale2, of, scores, d_weights);
    uint32_t weights[1][kTileRows / 16][4], d_scores[1][kTileRows / 16][4];
    round_to_left(scores, weights);
    round_to_left(d_weights, d_scores);
    await_copies();
    if (tile + 1 < last) begin_copies(tile + 2, next == kStages - 1 ? 0 : next + 1);
    begin_columns(sums_v[0], weights, room.stage_v(stage));
    begin_columns(sums_k[0], d_scores, room.stage_k(stage));
    if (tile < last) {
      begin_rows(scores[0], k, room.stage_k(next));
      begin_rows(d_weights[0], v, room.stage_v(next));
    }
    stage = next;
  }
  await_products();
  receive(sums_k[0]);
  receive(sums_v[0]);
  const int64_t start = in.key_row(head, s0 + own);
  const int rows = length - s0 - own;
  const float scaled[1][2] = {{in.scale, in.scale}}, plain[1][2] = {{1, 1}};
  if (d_k) put_rows(d_k, start * K, in.k_pitch(), rows, K, sums_k, scaled);
  if (d_v) put_rows(d_v, start * V, in.v_pitch(), rows, V, sums_v, plain);
}

}  // namespace

void reverse_queries_by_warpgroups(const TiledAttention& in, int64_t heads, const BackwardTiles& g,
                                   const Sink& d_q, cudaStream_t stream) {
  constexpr int kGroups = 3, kQueries = 64 * kGroups;
  using Room = GroupRoom<kGroups>;
  const TileOrder order(heads, (in.steps + kQueries - 1) / kQueries,
                        in.length * (in.K + in.V) * int64_t{sizeof(Narrow)});
  ask_for_shared(reverse_query_tiles<kGroups>, Room::kBytes);
  reverse_query_tiles<kGroups>
      <<<order.blocks(), 128 * kGroups, Room::kBytes, stream>>>(in, order, g, Result<float>(d_q));
}

void reverse_keys_by_warpgroups(const TiledAttention& in, int64_t heads, const BackwardTiles& g,
                                const Sink& d_k, const Sink& d_v, cudaStream_t stream) {
  constexpr int kGroups = 2, kKeys = 64 * kGroups;
  using Room = GroupRoom<kGroups>;
  const TileOrder order(heads, (in.length + kKeys - 1) / kKeys,
                        in.steps * (in.K + in.V) * int64_t{sizeof(Narrow)});
  ask_for_shared(reverse_key_tiles<kGroups>, Room::kBytes);
  reverse_key_tiles<kGroups><<<order.blocks(), 128 * kGroups, Room::kBytes, stream>>>(
      in, order, g, Result<float>(d_k), Result<float>(d_v));
}

}  // namespace regla::cuda
