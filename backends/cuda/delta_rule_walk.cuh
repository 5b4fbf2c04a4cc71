#pragma once

#include "backends/cuda/block.cuh"
#include "backends/cuda/delta_rule_chunk.cuh"

// A pass over the chunks of a head in order, which both directions have:
//
// - A block has a head and 64 columns of its state. Four warps have 16 columns each, transposed,
// and
//   keep them in registers: columns meet in no sum, so these warps never wait for each other within
//   a chunk.
// - Four other warps find the scores of the next chunk and the inverses of its blocks meanwhile
//   (neither knows the state), and begin to load the one behind it.
namespace regla::cuda {

constexpr int kDeltaThreads = 2 * kTileThreads;

template <int K>
struct DeltaWalkMemory {
  static constexpr int kPitch = K + 8, kValuePitch = kColumns + 8, kStagePitch = 24;

  struct Tokens {
    Bf16 q[kChunkTokens * kPitch], k[kChunkTokens * kPitch];
    Bf16 v[kChunkTokens * kValuePitch];  // each warp puts its outputs in place of its columns
    ChunkScalars scalars;
  };
  static constexpr int kBuffers = K == 64 ? 4 : 3;
  Tokens tokens[kBuffers];  // of this chunk, the next one and those that are loaded
  ChunkScores scores[2];
  Bf16 stage[kWarps][16 * kStagePitch];
  float numbers[kWarps][16 * kInversePitch];
};

/// What a warp has of such a pass: 16 columns of the state, or of its gradient.
template <int K, class Problem>
struct DeltaWalkColumns {
  using Launch = Problem;
  using Memory = DeltaWalkMemory<K>;
  static constexpr int kFeatures = K;
  static constexpr int kPitch = Memory::kPitch, kValuePitch = Memory::kValuePitch;
  static constexpr int kPieces = K / 16;

  const Launch& p;
  Lane in;
  int n, column, j0;  // the first column within the block, and within the state
  StateColumns<K> state;

  __device__ DeltaWalkColumns(const Launch& problem, int head, int first_column, int warp)
      : p(problem), n(head), column(16 * warp), j0(first_column + 16 * warp) {}

  /// The one of tensors [.., K, V], null where there is none.
  template <class Number>
  __device__ Number* of_state(Number* states, int64_t which) const {
    return states == nullptr ? nullptr : states + which * p.K * p.V;
  }
  __device__ void load_state(const float* from) { load_columns<K>(state, from, p, j0, in); }
  __device__ void store_state(float* to) { store_columns<K>(state, to, p, j0, in); }
};

/// By 128 threads: begins to load a chunk.
template <int K>
__device__ void load_delta_tokens(typename DeltaWalkMemory<K>::Tokens& to, const DeltaRuleChunks& p,
                                  int n, int chunk, int first_column, int thread) {
  const int64_t row = p.row(n, int64_t{chunk} * kChunkTokens);
  const int tokens = p.tokens(chunk);
  const int key_stride = p.H * p.K, value_stride = p.H * p.V;
  copy_rows<K, kChunkTokens, kTileThreads>(to.q, p.q + row * p.K, key_stride, p.K, tokens, thread);
  copy_rows<K, kChunkTokens, kTileThreads>(to.k, p.k + row * p.K, key_stride, p.K, tokens, thread);
  copy_rows<kColumns, kChunkTokens, kTileThreads>(to.v, p.v + row * p.V + first_column,
                                                  value_stride, p.V - first_column, tokens, thread);
  if (thread < kChunkTokens) to.scalars.load(p, n, chunk, thread);
}

/// Walks the chunks of a head in the order of `Columns`, each warp of which takes 16 columns over
/// one after the other.
template <class Columns>
__global__ __launch_bounds__(kDeltaThreads,
                             1) void walk_delta_chunks(const typename Columns::Launch p) {
  constexpr int K = Columns::kFeatures, kAhead = DeltaWalkMemory<K>::kBuffers - 2;
  using Memory = DeltaWalkMemory<K>;
  extern __shared__ __align__(16) unsigned char bytes[];
  Memory& memory = *reinterpret_cast<Memory*>(bytes);
  const int n = static_cast<int>(blockIdx.x),
            first_column = static_cast<int>(blockIdx.y) * kColumns;
  const int thread = static_cast<int>(threadIdx.x) % kTileThreads, warp = thread / 32;
  const bool finds_scores = threadIdx.x >= kTileThreads;
  Columns columns(p, n, first_column, warp, memory.stage[warp]);
  const auto load = [&](int step) {
    if (step < p.chunks) {
      load_delta_tokens<K>(memory.tokens[step % Memory::kBuffers], p, n, Columns::chunk_of(p, step),
                           first_column, thread);
    }
    end_group();
  };
  const auto score_chunk = [&](int step) {
    const typename Memory::Tokens& tokens = memory.tokens[step % Memory::kBuffers];
    find_scores<K, kWarps>(memory.scores[step % 2], tokens.q, tokens.k, tokens.scalars,
                           memory.numbers[warp], warp, columns.in);
  };

  if (finds_scores) {
    if (p.reset == nullptr && thread < kChunkTokens) {
      for (auto& tokens : memory.tokens) tokens.scalars.reset[thread] = 0;
    }
    for (int step = 0; step <= kAhead; ++step) load(step);
    await_groups<kAhead>();
  } else {
    columns.begin();
  }
  __syncthreads();
  if (finds_scores) {
    if (p.chunks > 0) score_chunk(0);
    await_groups<kAhead - 1>();
  }
  __syncthreads();
  for (int step = 0; step < p.chunks; ++step) {
    if (finds_scores) {
      load(step + kAhead + 1);
      if (step + 1 < p.chunks) score_chunk(step + 1);
      await_groups<kAhead - 1>();
    } else {
      columns.run(memory.tokens[step % Memory::kBuffers], memory.scores[step % 2],
                  Columns::chunk_of(p, step));
    }
    __syncthreads();
  }
  if (!finds_scores) columns.end();
}

template <class Columns>
void launch_walk(const Context& on, int64_t heads, const typename Columns::Launch& p) {
  constexpr size_t kBytes = sizeof(DeltaWalkMemory<Columns::kFeatures>);
  ask_for_shared(walk_delta_chunks<Columns>, kBytes);
  const dim3 grid(static_cast<unsigned>(heads),
                  static_cast<unsigned>((p.V + kColumns - 1) / kColumns));
  walk_delta_chunks<Columns><<<grid, kDeltaThreads, kBytes, on.stream>>>(p);
}

}  // namespace regla::cuda
