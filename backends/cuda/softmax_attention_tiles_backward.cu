#include "backends/cuda/loops.cuh"
#include "backends/cuda/softmax_attention_tiles_backward.cuh"

// Backward, by the equations of softmax_attention_backward.cu, in three launches without atomics:
//
//   prepare       D = o . d_o of every query, its log-sum to base 2 and its first key, by head
//   queries       a warp has 32 queries with q, d_o and the sums of d_q, and meets 32 keys at a
//                 time: scores = q k^T, d_weights = d_o v^T - D, d_q += dS k
//   keys          a warp has 16 or 32 keys with the sums of d_k and d_v, and meets 32 queries at a
//                 time, with everything transposed: scores = k q^T, d_weights = v d_o^T - D,
//                 d_v += P d_o, d_k += dS q
//
// So the scores are computed twice: seven products where five would do, but no sum goes through
// memory. D is where the sums of d_weights begin, and `scale` of dS is left to the end.
namespace regla::cuda {
namespace {

constexpr int kPairs = 32;  // keys, or queries, that a warp meets at a time

__device__ inline float dot_of_eight(const uint4& a, const uint4& b) {
  const uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = unpacked(left[i]), y = unpacked(right[i]);
    sum += x.x * y.x + x.y * y.y;
  }
  return sum;
}

template <int kSize>
__global__ void prepare_tiles(TiledAttention in, const Narrow* o, const float* log_sum,
                              BackwardTiles to) {
  constexpr int kLanes = kSize / 8;  // of a row
  const int64_t b = blockIdx.y, t0 = int64_t{blockIdx.x} * kTileRows;
  const int part = static_cast<int>(threadIdx.x) % kLanes;
  for (auto r = static_cast<int>(threadIdx.x) / kLanes; r < kTileRows * in.H;
       r += static_cast<int>(blockDim.x) / kLanes) {
    const int64_t h = r / kTileRows, t = t0 + r % kTileRows;
    const int64_t row = (b * in.steps + t) * in.H + h;
    float sum = 0;
    if (t < in.steps && part * 8 < in.V) {
      const int64_t at = row * in.V + part * 8;
      sum = dot_of_eight(*reinterpret_cast<const uint4*>(o + at),
                         *reinterpret_cast<const uint4*>(to.d_o + at));
    }
    for (int offset = kLanes / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    if (part == 0) {
      const int64_t at = (b * in.H + h) * to.padded + t;
      to.dots[at] = sum;
      to.shift[at] = t < in.steps ? log_sum[row] * kLog2E : 0;
    }
  }
  __shared__ int least[kTileRows / 32];
  if (threadIdx.x < kTileRows) {
    const int64_t t = t0 + threadIdx.x;
    const int begin = t < in.steps ? static_cast<int>(in.begin(b * in.H, t)) : kNobody;
    to.begin[b * to.padded + t] = begin;
    const int of_warp = __reduce_min_sync(0xffffffffu, begin);
    if (threadIdx.x % 32 == 0) least[threadIdx.x / 32] = of_warp;
  }
  __syncthreads();
  if (threadIdx.x == 0) to.lowest[b * gridDim.x + blockIdx.x] = min(least[0], least[1]);
}

template <int kRows, int kStageRows, int kSize>
struct BackwardRoom {
  static constexpr int kOwn = kRows * kPitch<kSize>, kHalf = kStageRows * kPitch<kSize>;
  static constexpr size_t kBytes = (2 * kOwn + 4 * kHalf) * sizeof(Narrow);

  Narrow* own_k = shared_memory<Narrow>();  // rows as wide as keys: q, or k
  Narrow* own_v = own_k + kOwn;             // and as values: d_o, or v

  __device__ Narrow* stage_k(int stage) const { return own_v + kOwn + stage * 2 * kHalf; }
  __device__ Narrow* stage_v(int stage) const { return stage_k(stage) + kHalf; }
};

// ---- d_q -------------------------------------------------------------------------------------

/// Keys in a stage of the kernel that has queries.
template <int kSize>
constexpr int kStageKeys = kSize <= 64 ? 64 : 32;

template <int kSize>
using QueryRoom = BackwardRoom<kTileQueries, kStageKeys<kSize>, kSize>;

/// A warp's 32 queries.
template <int kSize>
struct QueryGradients {
  static constexpr bool kHeld = kSize <= 64;
  RowFragments<2, kSize, kHeld> q, d_o;
  float d_q[2][kSize / 8][4] = {}, shift[2][2], dots[2][2];

  __device__ QueryGradients(const Narrow* q, const Narrow* d_o, const BackwardTiles& g, int64_t at)
      : q(q), d_o(d_o) {
    for (int i = 0; i < 2; ++i) {
      for (int h = 0; h < 2; ++h) {
        const int64_t row = at + 16 * i + 8 * h + lane_of_warp() / 4;
        shift[i][h] = g.shift[row];
        dots[i][h] = g.dots[row];
      }
    }
  }

  /// Adds keys [s0, s0 + kPairs).
  __device__ void add(const TiledAttention& in, const Sight<2>& sight, int s0, const Narrow* keys,
                      const Narrow* values) {
    float scores[2][kPairs / 8][4] = {}, d_weights[2][kPairs / 8][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < kPairs / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) d_weights[i][n][e] = -dots[i][e / 2];
      }
    }
    multiply_rows(scores, q, along<kSize>(keys));
    multiply_rows(d_weights, d_o, along<kSize>(values));
    if (!sight.all_see(s0, kPairs)) sight.hide(s0, scores);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < kPairs / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          d_weights[i][n][e] *= fast_exp2(fmaf(scores[i][n][e], in.scale2, -shift[i][e / 2]));
        }
      }
    }
    uint32_t d_scores[2][kPairs / 16][4];
    round_to_left(d_weights, d_scores);
    multiply_columns<2, kPairs / 8, kSize>(d_q, d_scores, across<kSize>(keys));
  }
};

template <int kSize>
__global__ __launch_bounds__(kTileThreads,
                             2) void reverse_query_tiles(TiledAttention in, TileOrder order,
                                                         BackwardTiles g, Result<float> d_q) {
  constexpr int kKeys = kStageKeys<kSize>;
  __shared__ int room_of_warps[kTileWarps], begins[kTileQueries];
  const QueryRoom<kSize> room;
  int head, rank;
  order.find(head, rank);
  const int t0 = (order.tiles - 1 - rank) * kTileQueries;
  const int own = static_cast<int>(threadIdx.x) / 32 * kWarpQueries,
            rows = static_cast<int>(in.steps);
  const Sight<2> sight(in, head, t0 + own, begins + own);
  const int first = least_of_warps<kTileWarps>(sight.lowest(), room_of_warps) / kKeys;
  int tile = static_cast<int>(in.end(min(t0 + kTileQueries, rows) - 1) - 1) / kKeys;

  const auto K = static_cast<int>(in.K), V = static_cast<int>(in.V);
  const auto length = static_cast<int>(in.length);
  const int64_t row = in.query_row(head, 0), key = in.key_row(head, 0);
  const TileSource<kKeys, kSize> keys(in.k + key * K, in.k_pitch(), length, K);
  const TileSource<kKeys, kSize> values(in.v + key * V, in.v_pitch(), length, V);
  const auto begin_copies = [&](int of, int stage) {
    keys.begin_copy(of * kKeys, room.stage_k(stage));
    values.begin_copy(of * kKeys, room.stage_v(stage));
    end_group();
  };
  TileSource<kTileQueries, kSize>(in.q + row * K, in.k_pitch(), rows, K).begin_copy(t0, room.own_k);
  TileSource<kTileQueries, kSize>(g.d_o + row * V, in.v_pitch(), rows, V)
      .begin_copy(t0, room.own_v);
  begin_copies(tile, 0);
  await_groups<0>();
  __syncthreads();
  QueryGradients<kSize> sums(room.own_k + own * kPitch<kSize>, room.own_v + own * kPitch<kSize>, g,
                             int64_t{head} * g.padded + t0 + own);
  for (int stage = 0; tile >= first; --tile, stage ^= 1) {
    await_groups<0>();
    __syncthreads();
    if (tile > first) begin_copies(tile - 1, stage ^ 1);
#pragma unroll 1
    for (int part = 0; part < kKeys; part += kPairs) {
      const int s0 = tile * kKeys + part;
      if (!sight.any_sees(s0, kPairs)) continue;
      sums.add(in, sight, s0, room.stage_k(stage) + part * kPitch<kSize>,
               room.stage_v(stage) + part * kPitch<kSize>);
    }
  }
  const float factor[2][2] = {{in.scale, in.scale}, {in.scale, in.scale}};
  put_rows(d_q, in.query_row(head, t0 + own) * K, in.k_pitch(), rows - t0 - own, K, sums.d_q,
           factor);
}

// ---- d_k and d_v -----------------------------------------------------------------------------

/// Blocks of 16 keys that a warp has: so many that their sums fill half of its registers.
template <int kSize>
constexpr int kKeyBlocks = 128 / kSize;
template <int kSize>
constexpr int kTileKeys = kTileWarps * 16 * kKeyBlocks<kSize>;

template <int kSize>
struct KeyRoom : BackwardRoom<kTileKeys<kSize>, kTileRows, kSize> {
  using Base = BackwardRoom<kTileKeys<kSize>, kTileRows, kSize>;
  static constexpr size_t kBytes = Base::kBytes + 2 * 3 * kTileRows * sizeof(float);

  /// Of a stage's queries: log-sums, D and first keys.
  __device__ float* shift(int stage) const {
    return reinterpret_cast<float*>(this->stage_k(2)) + stage * 3 * kTileRows;
  }
  __device__ float* dots(int stage) const { return shift(stage) + kTileRows; }
  __device__ int32_t* begin(int stage) const {
    return reinterpret_cast<int32_t*>(shift(stage) + 2 * kTileRows);
  }
};

/// A warp's keys.
template <int kSize>
struct KeyGradients {
  static constexpr int kM = kKeyBlocks<kSize>;
  RowFragments<kM, kSize, false> k, v;
  float d_k[kM][kSize / 8][4] = {}, d_v[kM][kSize / 8][4] = {};

  __device__ KeyGradients(const Narrow* k, const Narrow* v) : k(k), v(v) {}

  /// Adds kPairs queries, of which each sees the keys of this warp, s0 and on, or not.
  __device__ void add(const TiledAttention& in, const QueryNumbers& of, bool all_see, int s0,
                      const Narrow* q, const Narrow* d_o) {
    float scores[kM][kPairs / 8][4] = {}, d_weights[kM][kPairs / 8][4];
    const int column = lane_of_warp() % 4 * 2;
    multiply_rows(scores, k, along<kSize>(q));
    if (!all_see) of.hide(s0, scores);
#pragma unroll
    for (int n = 0; n < kPairs / 8; ++n) {
      const float2 shift = *reinterpret_cast<const float2*>(of.shift + 8 * n + column);
      const float2 dots = *reinterpret_cast<const float2*>(of.dots + 8 * n + column);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          scores[i][n][e] =
              fast_exp2(fmaf(scores[i][n][e], in.scale2, e % 2 == 0 ? -shift.x : -shift.y));
          d_weights[i][n][e] = e % 2 == 0 ? -dots.x : -dots.y;
        }
      }
    }
    multiply_rows(d_weights, v, along<kSize>(d_o));
    uint32_t left[kM][kPairs / 16][4];
    round_to_left(scores, left);
    multiply_columns<kM, kPairs / 8, kSize>(d_v, left, across<kSize>(d_o));
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int n = 0; n < kPairs / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) d_weights[i][n][e] *= scores[i][n][e];
      }
    }
    round_to_left(d_weights, left);
    multiply_columns<kM, kPairs / 8, kSize>(d_k, left, across<kSize>(q));
  }
};

template <int kSize>
__global__ __launch_bounds__(kTileThreads,
                             2) void reverse_key_tiles(TiledAttention in, TileOrder order,
                                                       BackwardTiles g, Result<float> d_k,
                                                       Result<float> d_v) {
  constexpr int kKeys = kTileKeys<kSize>, kOwn = kKeys / kTileWarps;
  __shared__ int room_of_warps[kTileWarps];
  const KeyRoom<kSize> room;
  int head, rank;
  order.find(head, rank);
  const int s0 = rank * kKeys, own = static_cast<int>(threadIdx.x) / 32 * kOwn;
  const auto past = static_cast<int>(in.length - in.steps), length = static_cast<int>(in.length);
  int tile = max(0, s0 - past) / kTileRows;
  const int last = last_tile_that_sees<kTileThreads>(in, g, head, tile, s0 + kKeys, room_of_warps);

  const auto K = static_cast<int>(in.K), V = static_cast<int>(in.V);
  const int64_t row = in.query_row(head, 0), key = in.key_row(head, 0);
  const TileSource<kTileRows, kSize> queries(in.q + row * K, in.k_pitch(),
                                             static_cast<int>(in.steps), K);
  const TileSource<kTileRows, kSize> outputs(g.d_o + row * V, in.v_pitch(),
                                             static_cast<int>(in.steps), V);
  const int64_t b = head / in.H;
  const auto begin_copies = [&](int of, int stage) {
    queries.begin_copy(of * kTileRows, room.stage_k(stage));
    outputs.begin_copy(of * kTileRows, room.stage_v(stage));
    copy_numbers_ahead(g, b, head, of, room, stage);
    end_group();
  };
  TileSource<kKeys, kSize>(in.k + key * K, in.k_pitch(), length, K).begin_copy(s0, room.own_k);
  TileSource<kKeys, kSize>(in.v + key * V, in.v_pitch(), length, V).begin_copy(s0, room.own_v);
  if (tile <= last) begin_copies(tile, 0);
  KeyGradients<kSize> sums(room.own_k + own * kPitch<kSize>, room.own_v + own * kPitch<kSize>);
  for (int stage = 0; tile <= last; ++tile, stage ^= 1) {
    await_groups<0>();
    __syncthreads();
    if (tile < last) begin_copies(tile + 1, stage ^ 1);
#pragma unroll 1
    for (int part = 0; part < kTileRows; part += kPairs) {
      const int from = s0 + own, end = past + tile * kTileRows + part + 1;
      const QueryNumbers of = {room.shift(stage) + part, room.dots(stage) + part,
                               room.begin(stage) + part, end};
      const int begin = of.begin[lane_of_warp()], sees_to = end + lane_of_warp();
      if (!__any_sync(0xffffffffu, begin < from + kOwn && sees_to > from)) continue;
      const bool all = __all_sync(0xffffffffu, begin <= from && sees_to >= from + kOwn);
      sums.add(in, of, all, from, room.stage_k(stage) + part * kPitch<kSize>,
               room.stage_v(stage) + part * kPitch<kSize>);
    }
  }
  await_groups<0>();
  float factor[kKeyBlocks<kSize>][2];
  for (auto& of : factor) of[0] = of[1] = in.scale;
  const int64_t start = in.key_row(head, s0 + own);
  const int rows = length - s0 - own;
  if (d_k) put_rows(d_k, start * K, in.k_pitch(), rows, K, sums.d_k, factor);
  for (auto& of : factor) of[0] = of[1] = 1;
  if (d_v) put_rows(d_v, start * V, in.v_pitch(), rows, V, sums.d_v, factor);
}

template <int kSize>
void reverse_queries(const TiledAttention& in, int64_t heads, const BackwardTiles& g,
                     const Sink& d_q, cudaStream_t stream) {
  using Room = QueryRoom<kSize>;
  const TileOrder order(heads, (in.steps + kTileQueries - 1) / kTileQueries,
                        in.length * (in.K + in.V) * int64_t{sizeof(Narrow)});
  ask_for_shared(reverse_query_tiles<kSize>, Room::kBytes);
  reverse_query_tiles<kSize>
      <<<order.blocks(), kTileThreads, Room::kBytes, stream>>>(in, order, g, Result<float>(d_q));
}

template <int kSize>
void reverse_keys(const TiledAttention& in, int64_t heads, const BackwardTiles& g, const Sink& d_k,
                  const Sink& d_v, cudaStream_t stream) {
  using Room = KeyRoom<kSize>;
  const TileOrder order(heads, (in.length + kTileKeys<kSize> - 1) / kTileKeys<kSize>,
                        in.steps * (in.K + in.V) * int64_t{sizeof(Narrow)});
  ask_for_shared(reverse_key_tiles<kSize>, Room::kBytes);
  reverse_key_tiles<kSize><<<order.blocks(), kTileThreads, Room::kBytes, stream>>>(
      in, order, g, Result<float>(d_k), Result<float>(d_v));
}

}  // namespace

void reverse_by_tiles(const SoftmaxAttentionArgs& args, const Tensor& o, const Tensor& log_sum,
                      const Tensor& d_o, const Sink& d_q, const Sink& d_k, const Sink& d_v) {
  constexpr int64_t kPadding = 384;  // whole tiles of every kernel
  const TiledAttention in(args);
  const Context& on = context(o);
  const int64_t B = args.q.dim(0), heads = B * in.H;
  const int64_t padded = (in.steps + kPadding - 1) / kPadding * kPadding;
  const int64_t tiles = padded / kTileRows;
  Tensor shift = Tensor::empty({heads, padded}, DType::F32, on.device);
  Tensor dots = Tensor::empty({heads, padded}, DType::F32, on.device);
  Tensor begin = Tensor::empty({B, padded}, DType::I32, on.device);
  Tensor lowest = Tensor::empty({B, tiles}, DType::I32, on.device);
  const BackwardTiles g = {static_cast<const Narrow*>(d_o.raw()),
                           shift.data<float>(),
                           dots.data<float>(),
                           begin.data<int32_t>(),
                           lowest.data<int32_t>(),
                           static_cast<int>(padded)};
  for_tile_size(args, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(B));
    prepare_tiles<kSize><<<grid, kThreads, 0, on.stream>>>(in, static_cast<const Narrow*>(o.raw()),
                                                           log_sum.data<float>(), g);
    if (kSize <= 64 && has_warpgroups(on)) {
      if (d_q) reverse_queries_by_warpgroups(in, heads, g, d_q, on.stream);
      if (d_k || d_v) reverse_keys_by_warpgroups(in, heads, g, d_k, d_v, on.stream);
    } else {
      if (d_q) reverse_queries<kSize>(in, heads, g, d_q, on.stream);
      if (d_k || d_v) reverse_keys<kSize>(in, heads, g, d_k, d_v, on.stream);
    }
  });
  require_launched("softmax_attention_backward");
}

}  // namespace regla::cuda
