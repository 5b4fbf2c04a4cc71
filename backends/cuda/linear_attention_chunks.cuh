#pragma once

#include "backends/cuda/clusters.cuh"
#include "backends/cuda/linear_attention_keys.cuh"

// The recurrence in chunks of 64 tokens, all of it in one launch:
//
//   S_t = a_t b_t s_t S_{t-1} + k_t u_t^T        o_t = S_t^T q_t
//
// - A block has a head and up to 64 columns of its state, a warp 16 of them. Columns meet in no
//   sum, so warps wait for each other only where a chunk has been loaded, and where the decays of
//   keys were shared out (linear_attention_keys.cuh).
// - Everything is computed transposed: rows are columns of the state. So the sums of one product
//   are the operand of the next, and what scales a column stays within a lane.
// - A chunk is two tiles of 32 tokens, a tile two blocks of 16. Within a tile the decays are
//   multiplied level by level (decays.cuh); between the tiles goes a state that began at 0 with the
//   chunk. So only two products know what came before the chunk: the state behind it,
//     S_out = total S_in + S_local,      and the last addition to o,      o += p S_in^T q.
// - Where there are too few heads for the GPU, a cluster of blocks has one: they take turns at its
//   chunks and pass the state on, each warp to the same warp of the next block, through its shared
//   memory. All else of a chunk is done meanwhile by another block.
// - Every input is read once, by copies a chunk ahead, and every output written once.
namespace regla::cuda {

/// What a tile leaves behind for the state before its chunk; o and p as products of columns by
/// tokens.
struct Tile {
  float o[2][2][4];
  RowDecays decays[2];
};

/// What a warp adds of the shared memory and the tensors to its lane.
template <int K, bool kKey, bool kValue>
struct ChunkWarp {
  using Memory = Chunk<K, kKey>;
  using State = float[K / 8][4];     // C fragments of columns by features
  using Narrow = uint32_t[K / 16][4];  // the same rounded, A fragments
  using Exchange = KeyExchange<kKey ? K : 16>;

  const ChunkedAttention& p;
  Exchange& exchange;
  Levels levels;
  Lane in;
  int column;  // the first one, within the block

  __device__ ChunkWarp(const ChunkedAttention& problem, Exchange& keys)
      : p(problem), exchange(keys), levels(Lane().group, Lane().member) {
    column = static_cast<int>(threadIdx.x) / 32 * 16;
  }

  /// c = a b, or c += a b.
  __device__ static void add_product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                     uint32_t b1, bool is_first) {
    if (is_first) {
      multiply(c, a, b0, b1);
    } else {
      multiply_add(c, a, b0, b1);
    }
  }

  /// The scores of a tile where no key decays.
  __device__ ScoreSums scores(const Memory& chunk, int token) const {
    float own[2][2][4], across[2][4];
#pragma unroll
    for (int feature = 0; feature < K; feature += 16) {
      uint32_t q[2][4], k[2][4];
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        const int at = (token + 16 * block) * Memory::kPitch + feature;
        in.load(q[block], chunk.q + at, Memory::kPitch);
        in.load_right_transposed(k[block], chunk.k + at, Memory::kPitch);
      }
#pragma unroll
      for (int keys = 0; keys < 2; ++keys) {
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          add_product(own[block][keys], q[block], k[block][2 * keys], k[block][2 * keys + 1], feature == 0);
        }
        add_product(across[keys], q[1], k[0][2 * keys], k[0][2 * keys + 1], feature == 0);
      }
    }
    ScoreSums sums;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        sums.own[i][0][e] = own[i][0][e];
        sums.own[i][1][e] = own[i][0][e + 2];
        sums.own[i][2][e] = own[i][1][e + 2];
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) sums.across[i][e] = across[i][e];
    }
    return sums;
  }

  /// What 16 tokens read of each other.
  __device__ void within_block(float (&o)[2][4], const uint32_t (&scores)[3],
                               const uint32_t (&u)[4], RowDecays& decays) const {
    if constexpr (!kValue) {
      multiply(o[0], u[0], u[1], scores[0]);
      multiply(o[1], u, scores[1], scores[2]);
      return;
    }
    // Of two neighbours the first one's r is the second one's p: one product for these and for
    // what a token reads of itself.
    uint32_t w[4];
    decays.scale_keys(w, u);
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const uint32_t own = scores[2 * tile], both[4] = {w[2 * tile], w[2 * tile + 1], u[2 * tile],
                                                        u[2 * tile + 1]};
      multiply(o[tile], both, own & levels.of_1, own & levels.itself);
      float x[4];
      multiply(x, w[2 * tile], w[2 * tile + 1], own & levels.of_2);
      decays.add_queries(o[tile], x, tile);
    }
    decays.template join<2>(in.member);
    decays.scale_keys(w, u);
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      float x[4];
      multiply(x, w[2 * tile], w[2 * tile + 1], scores[2 * tile] & levels.of_4);
      decays.add_queries(o[tile], x, tile);
    }
    decays.template join<4>(in.member);
    decays.scale_keys(w, u);
    float x[4];
    multiply(x, w[0], w[1], scores[1]);
    decays.add_queries(o[1], x, 1);
    decays.join_all();
  }

  /// o += p S^T q for the two blocks of a tile.
  __device__ void read_state(Tile& tile, const Narrow& state, const Memory& chunk,
                             int token) const {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      float x[2][4];
      float(&sums)[2][4] = kValue ? x : tile.o[block];
#pragma unroll
      for (int i = 0; i < K / 16; ++i) {
        uint32_t q[4];
        in.load_right_transposed(q, chunk.q + (token + 16 * block) * Memory::kPitch + 16 * i,
                                 Memory::kPitch);
        add_product(sums[0], state[i], q[0], q[1], kValue && i == 0);
        add_product(sums[1], state[i], q[2], q[3], kValue && i == 0);
      }
      if constexpr (kValue) {
#pragma unroll
        for (int i = 0; i < 2; ++i) tile.decays[block].add_queries(tile.o[block][i], x[i], i);
      }
    }
  }

  /// S += (r u) k^T over a block of tokens.
  __device__ void write_state(State& state, const uint32_t (&w)[4], const Bf16* k,
                              bool is_first) const {
#pragma unroll
    for (int i = 0; i < K / 16; ++i) {
      uint32_t right[4];
      in.load_right(right, k + 16 * i, Memory::kPitch);
      add_product(state[2 * i], w, right[0], right[1], is_first);
      add_product(state[2 * i + 1], w, right[2], right[3], is_first);
    }
  }

  __device__ RowDecays decays_of(const Memory& chunk, int token, bool with_logs,
                                 bool with_scalars) const {
    float factors[4][2];
    uint32_t logs[4] = {};
    if (with_logs) {
      in.load_transposed(logs, chunk.log_b + token * Memory::kValuePitch + column, Memory::kValuePitch);
    }
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const int t = token + 8 * tile + 2 * in.member;
      const float first = with_scalars ? chunk.scalar_log2(t) : 0;
      const float second = with_scalars ? chunk.scalar_log2(t + 1) : 0;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        factors_of(factors[2 * tile + row], logs[2 * tile + row], first, second);
      }
    }
    return RowDecays(factors);
  }

  /// A tile on top of those before it in its chunk, whose state is `local`.
  __device__ void run_tile(Tile& tile, State& local, const Memory& chunk, int number) const {
    const int token = number * kTileTokens;
    const Scores scores(kKey ? exchange.total(number, in.lane) : this->scores(chunk, token));
    uint32_t u[2][4], w[4];
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      in.load_transposed(u[block], chunk.u + (token + 16 * block) * Memory::kValuePitch + column,
                         Memory::kValuePitch);
      within_block(tile.o[block], scores.own[block], u[block], tile.decays[block]);
    }
    RowDecays(&decays)[2] = tile.decays;
    if constexpr (kValue) {
      decays[0].scale_keys(w, u[0]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float x[4];
        multiply(x, w, scores.across[i][0], scores.across[i][1]);
        decays[1].add_queries(tile.o[1][i], x, i);
      }
      join(decays[0], decays[1]);
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(tile.o[1][i], u[0], scores.across[i][0], scores.across[i][1]);
      }
    }
    if (number > 0) {
      Narrow narrow;
      round(narrow, local);
      read_state(tile, narrow, chunk, token);
      decay(local, decays[0], number);
    }
    const Bf16* const k = chunk.k + token * Memory::kPitch;
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      if constexpr (kValue) {
        decays[block].scale_keys(w, u[block]);
        write_state(local, w, k + 16 * block * Memory::kPitch, number + block == 0);
      } else {
        write_state(local, u[block], k + 16 * block * Memory::kPitch, number + block == 0);
      }
    }
  }

  __device__ static void round(Narrow& to, const State& from) {
#pragma unroll
    for (int i = 0; i < K / 8; ++i) {
      to[i / 2][i % 2 * 2] = packed(from[i][0], from[i][1]);
      to[i / 2][i % 2 * 2 + 1] = packed(from[i][2], from[i][3]);
    }
  }

  /// A key's total over a tile, for the features of a lane in 8 of them.
  __device__ float2 key_total(int tile, int i) const {
    return *reinterpret_cast<const float2*>(exchange.totals[tile] + 8 * i + 2 * in.member);
  }

  /// The state over a tile.
  __device__ void decay(State& state, const RowDecays& decays, int tile) const {
#pragma unroll
    for (int i = 0; i < K / 8; ++i) {
      const float2 a = kKey ? key_total(tile, i) : make_float2(1, 1);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (kValue) state[i][e] *= decays.total[e / 2];
        if (kKey) state[i][e] *= e % 2 == 0 ? a.x : a.y;
      }
    }
  }
};

/// Where a warp finds the state before its next chunk, in shared memory: lane by lane, four numbers
/// of a C fragment after the other.
template <int K>
struct Mailbox {
  float4* box;  // [K / 8, 32 lanes]
  uint64_t* barrier;
  uint32_t next_box, next_barrier;  // of the block that has the next chunk
  uint32_t parity = 0;

  static constexpr size_t kBytes = K / 8 * 32 * sizeof(float4);

  __device__ void await(int lane) {
    await_bytes(barrier, parity);
    parity ^= 1;
    if (lane == 0) expect_bytes(barrier, kBytes);
  }
};

template <int K, bool kKey, bool kValue>
struct ChunkRunner : ChunkWarp<K, kKey, kValue> {
  using Warp = ChunkWarp<K, kKey, kValue>;
  using typename Warp::Memory;
  using typename Warp::Narrow;
  using typename Warp::State;
  using Warp::column;
  using Warp::in;
  using Warp::p;

  int64_t n;         // the head
  int first_column;  // of the block
  Mailbox<K> mail;

  __device__ ChunkRunner(const Warp& warp, int64_t head, int block_column, const Mailbox<K>& box)
      : Warp(warp), n(head), first_column(block_column), mail(box) {}

  /// The first column of the state that is this warp's, and whether there is one.
  __device__ int j0() const { return first_column + column; }
  __device__ bool exists() const { return j0() < p.V; }

  /// Calls f with the numbers in the mailbox and their places in a state [B H, K, V].
  template <class F>
  __device__ void each_number(F f) const {
    float* const numbers = reinterpret_cast<float*>(mail.box);
#pragma unroll 1
    for (int i = 0; i < K / 8; ++i) {
      for (int e = 0; e < 4; ++e) {
        const int feature = 8 * i + 2 * in.member + e % 2, j = j0() + in.group + e / 2 * 8;
        const bool is_there = exists() && feature < p.K;
        f(numbers[(i * 32 + in.lane) * 4 + e], is_there, (n * p.K + feature) * p.V + j);
      }
    }
  }

  /// The state before the first chunk, into the mailbox.
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

  /// From the state before a chunk to that behind it, for whoever is next; `local` is what the
  /// chunk makes of nothing. Gives the state before it, rounded.
  __device__ void pass_on(Narrow& before, State& local, const Tile (&tiles)[kTiles],
                          bool stays) const {
    float b[2] = {1, 1};
    if constexpr (kValue) {
      for (int row = 0; row < 2; ++row) {
        b[row] = tiles[0].decays[0].total[row] * tiles[1].decays[0].total[row];
      }
    }
#pragma unroll
    for (int i = 0; i < K / 8; ++i) {
      const float4 s = mail.box[i * 32 + in.lane];
      before[i / 2][i % 2 * 2] = packed(s.x, s.y);
      before[i / 2][i % 2 * 2 + 1] = packed(s.z, s.w);
      float2 a = make_float2(1, 1);
      if constexpr (kKey) {
        const float2 first = this->key_total(0, i), second = this->key_total(1, i);
        a = make_float2(first.x * second.x, first.y * second.y);
      }
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

  __device__ void keep(const Narrow& before, const Memory& chunk, int64_t number) const {
    if (p.kept == nullptr) return;
    for (int i = 0; i < K / 16; ++i) {
      if (16 * i >= p.K) break;
      Bf16* const to = p.kept + ((n * p.chunks + number) * p.K + 16 * i) * p.V + j0();
      in.store_transposed(before[i], chunk.log_b + column, Memory::kValuePitch, to, p.V, 16);
    }
  }

  __device__ void put_outputs(const Tile (&tiles)[kTiles], const Memory& chunk,
                              int64_t number) const {
    const int64_t t0 = number * kChunkTokens;
    Bf16* const to = p.o + p.row(n, t0) * p.V + j0();
    const int pitch = p.H * p.V, rows = static_cast<int>(min(p.steps - t0, int64_t{kChunkTokens}));
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      const float(&o)[2][4] = tiles[block / 2].o[block % 2];
      uint32_t out[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out[i] = packed(o[i / 2][i % 2 * 2], o[i / 2][i % 2 * 2 + 1]);
      }
      in.store_transposed(out, chunk.u + 16 * block * Memory::kValuePitch + column,
                          Memory::kValuePitch, to + int64_t{16} * block * pitch, pitch,
                          rows - 16 * block);
    }
  }

  __device__ void run(const Memory& chunk, int64_t number) {
    Tile tiles[kTiles];
    State local;
    const bool with_scalars = p.log_s != nullptr || p.reset != nullptr;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if constexpr (kValue) {
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          tiles[tile].decays[block] = this->decays_of(chunk, tile * kTileTokens + 16 * block,
                                                      p.log_b != nullptr, with_scalars);
        }
      }
      this->run_tile(tiles[tile], local, chunk, tile);
    }
    if (number > 0 && p.ranks > 1) mail.await(in.lane);
    Narrow before;
    pass_on(before, local, tiles, number + 1 == p.chunks || p.ranks == 1);
    keep(before, chunk, number);
    this->read_state(tiles[0], before, chunk, 0);
    over_first_tile(tiles, before);
    this->read_state(tiles[1], before, chunk, kTileTokens);
    put_outputs(tiles, chunk, number);
  }

  /// The second tile reads the state before the chunk through the first one.
  __device__ void over_first_tile(Tile (&tiles)[kTiles], Narrow& before) const {
    if constexpr (kValue) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        tiles[1].decays[i / 8].p[i / 2 % 4][i % 2] *= tiles[0].decays[0].total[i / 2 % 4];
      }
    }
    if constexpr (kKey) {
#pragma unroll
      for (int i = 0; i < K / 8; ++i) {
        const float2 a = this->key_total(0, i);
        for (int row = 0; row < 2; ++row) {
          uint32_t& pair = before[i / 2][i % 2 * 2 + row];
          pair = scaled(pair, a.x, a.y);
        }
      }
    }
  }
};

/// What a block has in shared memory behind its chunks.
template <int K, bool kKey>
struct ChunkShared {
  float4 boxes[kWarps][K / 8 * 32];
  KeyExchange<kKey ? K : 16> keys;
  uint64_t barriers[kWarps];

  static constexpr size_t bytes(int buffers) {
    return buffers * Chunk<K, kKey>::kBytes + sizeof(ChunkShared);
  }
};

template <int K, bool kKey, bool kValue, int kBlocks = 2>
__global__ __launch_bounds__(kChunkThreads, kBlocks) void run_chunks(const ChunkedAttention p) {
  using Memory = Chunk<K, kKey>;
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& shared = *reinterpret_cast<ChunkShared<K, kKey>*>(bytes + p.buffers * Memory::kBytes);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rank = static_cast<int>(blockIdx.x) % p.ranks;
  const int64_t n = blockIdx.x / p.ranks;
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;

  Mailbox<K> mail = {shared.boxes[warp], &shared.barriers[warp]};
  if (p.ranks > 1) {
    if (threadIdx.x % 32 == 0) {
      begin_barrier(mail.barrier);
      expect_bytes(mail.barrier, mail.kBytes);
    }
    const uint32_t next = (rank + 1) % p.ranks;
    mail.next_box = address_in(mail.box, next);
    mail.next_barrier = address_in(mail.barrier, next);
    meet_cluster();
  }
  for (int i = 0; i < p.buffers; ++i) Memory(bytes + i * Memory::kBytes).clear();
  __syncthreads();
  ChunkRunner<K, kKey, kValue> runner(ChunkWarp<K, kKey, kValue>(p, shared.keys), n, first_column,
                                      mail);
  if (rank == 0) runner.begin();

  if (rank < p.chunks) Memory(bytes).load(p, n, rank, first_column);
  int turn = 0;
  for (int64_t number = rank; number < p.chunks; number += p.ranks, turn ^= p.buffers - 1) {
    const Memory chunk(bytes + turn * Memory::kBytes);
    await_groups<0>();
    __syncthreads();
    const int64_t next = number + p.ranks;
    if (p.buffers == 2 && next < p.chunks) {
      Memory(bytes + (turn ^ 1) * Memory::kBytes).load(p, n, next, first_column);
    }
    if constexpr (kKey) {
      const bool with_scalars = !kValue && (p.log_s != nullptr || p.reset != nullptr);
      for (int tile = 0; tile < kTiles; ++tile) {
        prepare_keys(chunk, tile, shared.keys, with_scalars, runner.levels, runner.in);
      }
      __syncthreads();
    }
    if (runner.exists()) runner.run(chunk, number);
    if (p.buffers == 1 && next < p.chunks) {
      __syncthreads();
      chunk.load(p, n, next, first_column);
    }
  }
  if (rank == (p.chunks - 1) % p.ranks) runner.end();
  if (p.ranks > 1) meet_cluster();
}

}  // namespace regla::cuda
