#pragma once

#include <type_traits>

#include "backends/cuda/clusters.cuh"
#include "backends/cuda/linear_attention_tile.cuh"

// The recurrence in tiles of 32 tokens, all of it in one launch:
//
//   S_t = a_t b_t s_t S_{t-1} + k_t u_t^T        o_t = S_t^T q_t
//
// - A block has a head and 64 columns of its state, a warp 16 of them. Columns meet in no sum, so
//   warps wait for each other only where a tile has been loaded, and where the decays of keys were
//   shared out (linear_attention_keys.cuh).
// - Within a tile the decays are multiplied level by level (decays.cuh). Only two operations know
//   the state before it: the state behind it, S_out = total S_in + S_local, and the last addition
//   to the outputs, o += p S_in^T q.
// - Where there are too few heads for the GPU, a cluster of blocks has one: they take turns at its
//   tiles and pass the state on, each warp to the same warp of the next block, through its shared
//   memory. All else of a tile is done meanwhile.
// - Every input is read once, by copies a tile ahead, and every output written once.
namespace regla::cuda {

/// Where a warp finds the state before its next tile, in shared memory: lane by lane, four numbers
/// of a C fragment after the other.
template <int K>
struct Mailbox {
  float4* box;  // [K / 8, 32 lanes]
  uint64_t* barrier;
  uint32_t next_box, next_barrier;  // of the block that has the next tile
  uint32_t parity = 0;

  static constexpr size_t kBytes = K / 8 * 32 * sizeof(float4);

  /// Between blocks that are both there.
  __device__ void connect(int lane, int rank, int ranks) {
    if (lane == 0) {
      begin_barrier(barrier);
      expect_bytes(barrier, kBytes);
    }
    const uint32_t next = (rank + 1) % ranks;
    next_box = address_in(box, next);
    next_barrier = address_in(barrier, next);
    meet_cluster();
  }
  __device__ void await(int lane) {
    await_bytes(barrier, parity);
    parity ^= 1;
    if (lane == 0) expect_bytes(barrier, kBytes);
  }
};

template <int K, bool kKey, bool kValue>
struct TileRunner {
  using Warp = TileWarp<K, kKey, kValue>;
  using Memory = typename Warp::Memory;
  using Exchange = std::conditional_t<kKey, KeyExchange<K>, NoKeyExchange>;

  const ChunkedAttention& p;
  Warp warp;
  Exchange& exchange;
  Mailbox<K> mail;
  Head head;
  int j0;  // the first column of the state that is this warp's

  __device__ bool exists() const { return j0 < p.V; }

  /// Calls f with the numbers in the mailbox and their places in a state [B H, K, V].
  template <class F>
  __device__ void each_number(F f) const {
    const Lane& in = warp.in;
    float* const numbers = reinterpret_cast<float*>(mail.box);
#pragma unroll 1
    for (int i = 0; i < K / 8; ++i) {
      for (int e = 0; e < 4; ++e) {
        const int feature = 8 * i + 2 * in.member + e % 2, j = j0 + in.group + e / 2 * 8;
        const bool is_there = exists() && feature < p.K;
        f(numbers[(i * 32 + in.lane) * 4 + e], is_there, (int64_t{head.n} * p.K + feature) * p.V + j);
      }
    }
  }
  /// The state before the first tile, into the mailbox.
  __device__ void begin() const {
    each_number([&](float& x, bool is_there, int64_t at) {
      x = is_there && p.first != nullptr ? p.first[at] : 0;
    });
  }
  /// The state behind the last one, out of it.
  __device__ void end() const {
    each_number([&](float& x, bool is_there, int64_t at) {
      if (is_there) p.last[at] = x;
    });
  }

  /// From the state before a tile to that behind it, for whoever is next; `local` is what the tile
  /// makes of a state of 0. Gives the state before it, rounded.
  __device__ void pass_on(typename Warp::Narrow& before, typename Warp::State& local,
                          bool stays) const {
    const Lane& in = warp.in;
#pragma unroll
    for (int i = 0; i < K / 8; ++i) {
      const float4 s = mail.box[i * 32 + in.lane];
      before[i / 2][i % 2 * 2] = packed(s.x, s.y);
      before[i / 2][i % 2 * 2 + 1] = packed(s.z, s.w);
      float2 a = make_float2(1, 1);
      if constexpr (kKey) {
        a = *reinterpret_cast<const float2*>(exchange.totals + 8 * i + 2 * in.member);
      }
      const float b[2] = {kValue ? warp.decays[0].total[0] : 1,
                          kValue ? warp.decays[0].total[1] : 1};
      local[i][0] += a.x * b[0] * s.x;
      local[i][1] += a.y * b[0] * s.y;
      local[i][2] += a.x * b[1] * s.z;
      local[i][3] += a.y * b[1] * s.w;
    }
    const auto each_piece = [&](auto put) {
#pragma unroll
      for (int i = 0; i < K / 8; ++i) {
        put(i * 32 + in.lane, make_float4(local[i][0], local[i][1], local[i][2], local[i][3]));
      }
    };
    if (stays) {
      each_piece([&](int at, const float4& piece) { mail.box[at] = piece; });
    } else {
      each_piece([&](int at, const float4& piece) {
        send(mail.next_box + at * sizeof(float4), piece, mail.next_barrier);
      });
    }
  }

  __device__ void keep(const typename Warp::Narrow& before, const Memory& tile,
                       int chunk) const {
    for (int i = 0; i < K / 16; ++i) {
      if (16 * i >= p.K) break;
      Bf16* const to = p.kept + ((int64_t{head.n} * p.chunks + chunk) * p.K + 16 * i) * p.V + j0;
      warp.in.store_transposed(before[i], tile.log_b, 0, warp.column, to, p.V, 16);
    }
  }

  __device__ void put_outputs(const Memory& tile, int number) const {
    const int64_t t0 = int64_t{number} * kTileTokens;
    Bf16* const to = p.o + (head.row + t0 * p.H) * p.V + j0;
    const int pitch = p.H * p.V, rows = static_cast<int>(min(p.steps - t0, int64_t{kTileTokens}));
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const float(&o)[2][4] = warp.o[block];
      uint32_t out[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out[i] = packed(o[i / 2][i % 2 * 2], o[i / 2][i % 2 * 2 + 1]);
      }
      warp.in.store_transposed(out, tile.u, 16 * block, warp.column,
                               to + int64_t{16} * block * pitch, pitch, rows - 16 * block);
    }
  }

  __device__ void run(const Memory& tile, int number) {
    typename Warp::State local;
    if constexpr (kKey) {
      warp.run(local, tile, exchange.total(warp.in.lane));
    } else {
      warp.run(local, tile, scores_of(tile, warp.in));
    }
    complete(local);
    complete(warp.o[0]);
    complete(warp.o[1]);
    if (number > 0 && p.ranks > 1) mail.await(warp.in.lane);
    typename Warp::Narrow before;
    pass_on(before, local, p.ranks == 1 || number + 1 == p.tiles);
    constexpr int kTilesPerChunk = kChunkTokens / kTileTokens;
    if (p.kept != nullptr && number % kTilesPerChunk == 0) {
      keep(before, tile, number / kTilesPerChunk);
    }
    warp.read_state(before, tile);
    put_outputs(tile, number);
  }
};

/// What a block has in shared memory behind its tiles.
template <int K, bool kKey>
struct ChunkShared {
  float4 boxes[kWarps][K / 8 * 32];
  std::conditional_t<kKey, KeyExchange<K>, NoKeyExchange> keys;
  uint64_t barriers[kWarps];

  static constexpr size_t bytes(int buffers) {
    return buffers * Tile<K, kKey>::kBytes + sizeof(ChunkShared);
  }
};

template <int K, bool kKey, bool kValue, int kBlocks = (K <= 64 ? 12 : 8) / kWarps>
__global__ __launch_bounds__(kTileThreads, kBlocks) void run_chunks(const ChunkedAttention p) {
  using Memory = Tile<K, kKey>;
  extern __shared__ __align__(256) unsigned char memory[];
  auto& shared = *reinterpret_cast<ChunkShared<K, kKey>*>(memory + p.buffers * Memory::kBytes);
  const auto buffer = [&](int i) { return Memory(memory + i * Memory::kBytes); };
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rank = static_cast<int>(blockIdx.x) % p.ranks;
  const Head head(p, static_cast<int>(blockIdx.x) / p.ranks);
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;

  TileRunner<K, kKey, kValue> runner = {p,
                                        TileWarp<K, kKey, kValue>(p),
                                        shared.keys,
                                        {shared.boxes[warp], &shared.barriers[warp]},
                                        head,
                                        first_column + 16 * warp};
  if (p.ranks > 1) runner.mail.connect(runner.warp.in.lane, rank, p.ranks);
  for (int i = 0; i < p.buffers; ++i) buffer(i).clear();
  if (rank == 0) runner.begin();
  __syncthreads();

  if (rank < p.tiles) buffer(0).load(p, head, rank, first_column);
  int turn = 0;
  for (int number = rank; number < p.tiles; number += p.ranks, turn ^= p.buffers - 1) {
    const Memory tile = buffer(turn);
    await_groups<0>();
    __syncthreads();
    const int next = number + p.ranks;
    if (p.buffers == 2 && next < p.tiles) buffer(turn ^ 1).load(p, head, next, first_column);
    if constexpr (kKey) {
      prepare_keys(tile, shared.keys, !kValue && p.has_scalars(), runner.warp.levels,
                   runner.warp.in);
      __syncthreads();
    }
    if (runner.exists()) runner.run(tile, number);
    if (p.buffers == 1 && next < p.tiles) {
      __syncthreads();
      tile.load(p, head, next, first_column);
    }
  }
  if (rank == (p.tiles - 1) % p.ranks) runner.end();
  if (p.ranks > 1) meet_cluster();
}

}  // namespace regla::cuda
