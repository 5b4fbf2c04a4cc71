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
// - Where there are too few heads for the GPU, a cluster of blocks has one: they take turns of one
//   or two tiles and pass the state on, each warp to the same warp of the next block, through its
//   shared memory. All else of a turn is done meanwhile. Passing on takes time that no other block
//   can hide, so where there are many turns they have two tiles; these need more registers.
// - Every input is read once, by copies a turn ahead, and every output written once.
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
    if (lane == 0) begin_barrier(barrier);
    const uint32_t next = (rank + 1) % ranks;
    next_box = address_in(box, next);
    next_barrier = address_in(barrier, next);
    meet_cluster();
    // Bytes may come before they are expected: a phase is not over without this.
    if (lane == 0) expect_bytes(barrier, kBytes);
  }
  __device__ void await(int lane) {
    await_bytes(barrier, parity);
    parity ^= 1;
    if (lane == 0) expect_bytes(barrier, kBytes);
  }
};

template <int K, bool kKey, bool kValue, bool kAlike, int kTiles>
struct TurnRunner {
  using Warp = TileWarp<K, kKey, kValue, kAlike>;
  using Memory = typename Warp::Memory;
  using State = typename Warp::State;
  using Narrow = typename Warp::Narrow;
  using Exchange = std::conditional_t<kKey, KeyExchange<K>, NoKeyExchange>;

  const ChunkedAttention& p;
  Warp warp;
  TileOutputs tiles[kTiles];
  Exchange (&exchanges)[kTiles];
  Mailbox<K> mail;
  Head head;
  int j0;  // the first column of the state that is this warp's

  __device__ TurnRunner(const ChunkedAttention& problem, Exchange (&keys)[kTiles],
                        const Mailbox<K>& mailbox, const Head& its_head, int column)
      : p(problem), warp(problem), exchanges(keys), mail(mailbox), head(its_head), j0(column) {}

  __device__ bool exists() const { return j0 < p.V; }

  /// Calls f with the numbers in the mailbox and their places in a state [B H, K, V].
  template <class F>
  __device__ void each_number(F f) const {
    float* const numbers = reinterpret_cast<float*>(mail.box);
#pragma unroll 1
    for (int i = 0; i < K / 8; ++i) {
      for (int e = 0; e < 4; ++e) {
        const int feature = 8 * i + 2 * warp.in.member + e % 2, j = j0 + warp.in.group + e / 2 * 8;
        const bool is_there = exists() && feature < p.K;
        f(numbers[(i * 32 + warp.in.lane) * 4 + e], is_there,
          (int64_t{head.n} * p.K + feature) * p.V + j);
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

  /// A key's total over a tile, for the features of a lane in 8 of them.
  __device__ float2 key_total(int tile, int i) const {
    if constexpr (!kKey)
      return make_float2(1, 1);
    else
      return *reinterpret_cast<const float2*>(exchanges[tile].totals + 8 * i + 2 * warp.in.member);
  }
  /// The same for values: the rows of a lane.
  __device__ float2 value_total(int tile) const {
    const float(&total)[4] = tiles[tile].decays[0].total;
    return kValue ? make_float2(total[0], total[1]) : make_float2(1, 1);
  }
  /// S over a tile.
  __device__ void decay(float (&s)[4], int tile, int i) const {
    const float2 a = key_total(tile, i), b = value_total(tile);
    s[0] *= a.x * b.x;
    s[1] *= a.y * b.x;
    s[2] *= a.x * b.y;
    s[3] *= a.y * b.y;
  }

  /// From the state before a turn to that behind it, for whoever is next; `local` is what the turn
  /// makes of a state of 0. Gives the state before it, rounded.
  __device__ void pass_on(Narrow& before, State& local, bool stays) const {
#pragma unroll
    for (int i = 0; i < K / 8; ++i) {
      const float4 box = mail.box[i * 32 + warp.in.lane];
      float s[4] = {box.x, box.y, box.z, box.w};
      before[i / 2][i % 2 * 2] = packed(s[0], s[1]);
      before[i / 2][i % 2 * 2 + 1] = packed(s[2], s[3]);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) decay(s, tile, i);
#pragma unroll
      for (int e = 0; e < 4; ++e) local[i][e] += s[e];
    }
    const auto each_piece = [&](auto put) {
#pragma unroll
      for (int i = 0; i < K / 8; ++i) {
        put(i * 32 + warp.in.lane, make_float4(local[i][0], local[i][1], local[i][2], local[i][3]));
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

  __device__ void keep(const Narrow& before, const Memory& tile, int chunk) const {
    for (int i = 0; i < K / 16; ++i) {
      if (16 * i >= p.K) break;
      Bf16* const to = p.kept + ((int64_t{head.n} * p.chunks + chunk) * p.K + 16 * i) * p.V + j0;
      warp.in.store_transposed(before[i], tile.log_b + warp.column, Memory::kValuePitch, to, p.V,
                               16);
    }
  }

  __device__ void put_outputs(const TileOutputs& outputs, const Memory& tile, int64_t t0) const {
    Bf16* const to = p.o + head.at(t0, p.V) + j0;
    const int pitch = p.H * p.V, rows = static_cast<int>(min(p.steps - t0, int64_t{kTileTokens}));
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const float(&o)[2][4] = outputs.o[block];
      uint32_t out[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out[i] = packed(o[i / 2][i % 2 * 2], o[i / 2][i % 2 * 2 + 1]);
      }
      warp.in.store_transposed(out, tile.u + 16 * block * Memory::kValuePitch + warp.column,
                               Memory::kValuePitch, to + int64_t{16} * block * pitch, pitch,
                               rows - 16 * block);
    }
  }

  /// A tile on top of those before it in its turn, which made `local`.
  __device__ void run_tile(State& local, const Memory& memory, int tile) {
    uint32_t w[2][4];
    if constexpr (kKey) {
      warp.run(tiles[tile], w, memory, exchanges[tile].total(warp.in.lane));
    } else {
      warp.run(tiles[tile], w, memory, scores_of(memory, warp.in));
    }
    if (tile > 0) {
      Narrow before;
#pragma unroll
      for (int i = 0; i < K / 8; ++i) {
        before[i / 2][i % 2 * 2] = packed(local[i][0], local[i][1]);
        before[i / 2][i % 2 * 2 + 1] = packed(local[i][2], local[i][3]);
        decay(local[i], tile, i);
      }
      warp.read_state(tiles[tile], before, memory);
    }
    warp.write_state(local, w, memory, tile == 0);
  }

  /// The state before the turn, as the tile behind this one reads it through this one.
  __device__ void go_over(Narrow& before, int tile) {
    if constexpr (kValue) {
      const float2 b = value_total(tile);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        tiles[tile + 1].decays[i / 8].p[i / 2 % 4][i % 2] *= i / 2 % 2 == 0 ? b.x : b.y;
      }
    }
    if constexpr (kKey) {
#pragma unroll
      for (int i = 0; i < K / 8; ++i) {
        const float2 a = key_total(tile, i);
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          uint32_t& pair = before[i / 2][i % 2 * 2 + row];
          pair = scaled(pair, a.x, a.y);
        }
      }
    }
  }

  /// `memory` gives a tile of the turn.
  template <class F>
  __device__ void run(F memory, int number) {
    State local;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) run_tile(local, memory(tile), tile);
    if (number > 0 && p.ranks > 1) mail.await(warp.in.lane);
    Narrow before;
    pass_on(before, local, p.ranks == 1 || number + 1 == p.turns);
    constexpr int kTurnsPerChunk = kChunkTokens / (kTileTokens * kTiles);
    if (p.kept != nullptr && number % kTurnsPerChunk == 0) {
      keep(before, memory(0), number / kTurnsPerChunk);
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      warp.read_state(tiles[tile], before, memory(tile));
      put_outputs(tiles[tile], memory(tile), (int64_t{number} * kTiles + tile) * kTileTokens);
      if (tile + 1 < kTiles) go_over(before, tile);
    }
  }
};

/// What a block has in shared memory behind its tiles.
template <int K, bool kKey, int kTiles>
struct ChunkShared {
  float4 boxes[kWarps][K / 8 * 32];
  std::conditional_t<kKey, KeyExchange<K>, NoKeyExchange> keys[kTiles];
  uint64_t barriers[kWarps];

  static constexpr size_t bytes(int buffers) {
    return buffers * kTiles * Tile<K, kKey>::kBytes + sizeof(ChunkShared);
  }
};

template <int K, bool kKey, bool kValue, bool kAlike, int kTiles>
__global__ __launch_bounds__(kTileThreads, K <= 64 && kTiles == 1
                                               ? 3
                                               : 2) void run_chunks(const ChunkedAttention p) {
  using Memory = Tile<K, kKey>;
  using Runner = TurnRunner<K, kKey, kValue, kAlike, kTiles>;
  extern __shared__ __align__(16) unsigned char bytes[];
  constexpr size_t kTurnBytes = kTiles * Memory::kBytes;
  auto& shared = *reinterpret_cast<ChunkShared<K, kKey, kTiles>*>(bytes + p.buffers * kTurnBytes);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rank = static_cast<int>(blockIdx.x) % p.ranks;
  const Head head(static_cast<int>(blockIdx.x) / p.ranks, p.H, p.steps);
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;
  const auto memory = [&](int buffer, int tile) {
    return Memory(bytes + buffer * kTurnBytes + tile * Memory::kBytes);
  };
  const auto load = [&](int buffer, int number) {
    for (int tile = 0; tile < kTiles; ++tile) {
      memory(buffer, tile).load(p, head, number * kTiles + tile, first_column);
    }
    end_group();
  };

  Runner runner(p, shared.keys, {shared.boxes[warp], &shared.barriers[warp]}, head,
                first_column + 16 * warp);
  if (p.ranks > 1) runner.mail.connect(runner.warp.in.lane, rank, p.ranks);
  for (int i = 0; i < p.buffers * kTiles; ++i) memory(0, i).clear();
  if (rank == 0) runner.begin();
  __syncthreads();

  if (rank < p.turns) load(0, rank);
  int buffer = 0;
  for (int number = rank; number < p.turns; number += p.ranks, buffer ^= p.buffers - 1) {
    await_groups<0>();
    __syncthreads();
    const int next = number + p.ranks;
    if (p.buffers == 2 && next < p.turns) load(buffer ^ 1, next);
    if constexpr (kKey) {
      for (int tile = 0; tile < kTiles; ++tile) {
        prepare_keys(memory(buffer, tile), shared.keys[tile], !kValue && p.has_scalars(),
                     runner.warp.levels, runner.warp.in);
      }
      __syncthreads();
    }
    if (runner.exists()) runner.run([&](int tile) { return memory(buffer, tile); }, number);
    if (p.buffers == 1 && next < p.turns) {
      __syncthreads();
      load(0, next);
    }
  }
  if (rank == (p.turns - 1) % p.ranks) runner.end();
  if (p.ranks > 1) meet_cluster();
}

}  // namespace regla::cuda
