#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "backends/cuda/cell_tile.cuh"
#include "backends/cuda/context.h"

// Runs any cell token by token, for any sizes: the kernels of a recurrence that has no faster ones,
// and what every faster kernel is compared with.
//
// Forward: columns of a state never meet, so a block has some columns of one head and a thread one,
// in shared memory; what the cell reads of the next tokens, a tile, arrives there together.
// Backward: a block has a head, a thread every so many of its columns. Of each span of 64 tokens,
// whose first state forward kept, it computes and keeps the state before each tile, then goes back
// tile by tile: the states of its tokens again, and the tokens in reverse. Each thread adds up the
// gradients of keys and scalars for its columns, and after every token the block adds those sums up
// in the order of the threads.
namespace regla::cuda {

/// One token over one column, whose entries are `pitch` apart; the result is o.
template <class A, class Cell, class S>
__device__ S step_column(const CellTile<A, Cell>& tokens, int c, int64_t j, S* column,
                         int64_t pitch) {
  S o, room[Cell::kRoom + 1];
  Cell::step(recurrence::Sizes{tokens.K, 1, pitch}, tokens.inputs(c, j), column, &o, room);
  return o;
}

/// `first` may be null (zeros), and `kept`.
template <class A, class Cell, class S>
__global__ void run_columns(CellTensors<A, Cell> in, Result<S> o, const S* first, S* last, S* kept,
                            int tile) {
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps,
                segments = segments_of(steps);
  const int64_t n = blockIdx.x, columns = blockDim.x, begin = int64_t{blockIdx.y} * columns;
  const int64_t mine = threadIdx.x, j = begin + mine;
  const bool exists = j < V;
  CellTile<A, Cell> tokens(shared_memory<S>(), K, columns, tile);
  S* column = shared_memory<S>() + CellTile<A, Cell>::size(K, columns, tile) + mine;
  copy_column<S>(K, exists && first != nullptr ? first + n * K * V + j : nullptr, V, column,
                 columns);
  for (int64_t t = 0; t < steps; t += tile) {
    if (kept != nullptr && exists && t % kSpan == 0) {
      copy_column(K, column, columns, kept + (n * segments + t / kSpan) * K * V + j, V);
    }
    const int count = static_cast<int>(min(int64_t{tile}, steps - t));
    tokens.load(in, n, t, count, begin);
    for (int c = 0; c < count && exists; ++c) {
      if (tokens.is_reset(c)) clear_column(K, column, columns);
      o.put(in.heads.row(n, t + c) * V + j, step_column(tokens, c, mine, column, columns));
    }
  }
  if (exists) copy_column(K, column, columns, last + n * K * V + j, V);
}

/// What a block of `reverse_heads` works on, in shared memory or elsewhere.
template <class S, class Cell>
struct ReverseMemory {
  static constexpr int64_t kKeys = Cell::kKeys.all(), kScalars = Cell::kScalars.all();

  S* states;   // [tile, K, V] before the tokens of a tile
  S* d_state;  // [K, V]
  S* sums;     // [kKeys K + kScalars, threads] of gradients, each thread's over its columns
  int64_t K, pitch;

  static __host__ __device__ int64_t size(int64_t K, int64_t V, int tile, int threads) {
    return (tile + 1) * K * V + (kKeys * K + kScalars) * (threads + 1);
  }
  __device__ ReverseMemory(S* memory, int64_t K_, int64_t V, int tile)
      : states(memory), d_state(states + tile * K_ * V), sums(d_state + K_ * V), K(K_) {
    pitch = blockDim.x + 1;  // odd, so that neither rows nor columns meet in one bank
    for (int64_t i = 0; i < kKeys * K + kScalars; ++i) sums[i * pitch + threadIdx.x] = 0;
  }

  __device__ S* my_sums(int64_t row) const { return sums + row * pitch + threadIdx.x; }
  /// A row of sums over all threads, in their order; it begins again at 0.
  __device__ S total(int64_t row) const {
    S *parts = sums + row * pitch, sum = 0;
#pragma unroll 8
    for (int64_t c = 0; c + 1 < pitch; ++c) sum += parts[c];
    for (int64_t c = 0; c + 1 < pitch; ++c) parts[c] = 0;
    return sum;
  }
};

/// Reverses token c of the tile, whose row is `row`, over all columns of a head.
template <class A, class Cell, class S>
__device__ void reverse_token(const CellTile<A, Cell>& tokens, const CellResults<S, Cell>& to,
                              const ReverseMemory<S, Cell>& memory, int c, int64_t row, int64_t V) {
  constexpr int64_t kKeys = Cell::kKeys.all(), kScalars = Cell::kScalars.all();
  const int64_t K = memory.K;
  const recurrence::Sizes n = {K, 1, V};
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    S room[Cell::kRoom + 1], d_values[Cell::kValues.all() + 1] = {}, d_scalars[kScalars + 1] = {};
    const recurrence::GradientPlaces<Cell, S> at = {memory.my_sums(0), d_values, d_scalars,
                                                    memory.pitch};
    Cell::step_backward(n, tokens.inputs(c, j), memory.states + c * K * V + j, tokens.d_o(c, j),
                        memory.d_state + j, at.gradients(n), room);
    if (tokens.is_reset(c)) clear_column(K, memory.d_state + j, V);
    for (size_t r = 0; r < Cell::kValues.all(); ++r) {
      if (to.values[r]) to.values[r].put(row * V + j, d_values[r]);
    }
    for (int64_t r = 0; r < kScalars; ++r) *memory.my_sums(kKeys * K + r) += d_scalars[r];
  }
  __syncthreads();
  for (int64_t r = 0; r < kKeys; ++r) {
    const Result<S>& out = to.keys[static_cast<size_t>(r)];
    for (int64_t i = threadIdx.x; out && i < K; i += blockDim.x) {
      out.put(row * K + i, memory.total(r * K + i));
    }
  }
  for (int64_t r = threadIdx.x; r < kScalars; r += blockDim.x) {
    const Result<S>& out = to.scalars[static_cast<size_t>(r)];
    const S sum = memory.total(kKeys * K + r);
    if (out) out.put(row, sum);
  }
  __syncthreads();
}

/// `between`: room for the states before the tiles of a span but the last, [heads, kSpan / tile -
/// 1, K, V]. `spill`: for what does not fit in shared memory, or null.
template <class A, class Cell, class S>
__global__ void reverse_heads(CellTensors<A, Cell> in, CellResults<S, Cell> to, const S* kept,
                              const S* d_last, S* between, S* spill, int tile) {
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps, size = K * V;
  const int64_t n = blockIdx.x, segments = segments_of(steps), threads = blockDim.x;
  CellTile<A, Cell> tokens(shared_memory<S>(), K, V, tile);
  const int64_t room = ReverseMemory<S, Cell>::size(K, V, tile, static_cast<int>(threads));
  S* const inside = shared_memory<S>() + CellTile<A, Cell>::size(K, V, tile);
  const ReverseMemory<S, Cell> memory(spill != nullptr ? spill + n * room : inside, K, V, tile);
  S* const states = memory.states;
  between += n * (kSpan / tile - 1) * size;
  const auto each_column = [&](auto f) {
    for (int64_t j = threadIdx.x; j < V; j += threads) f(j);
  };
  each_column([&](int64_t j) {
    const S* from = d_last != nullptr ? d_last + n * size + j : nullptr;
    copy_column(K, from, V, memory.d_state + j, V);
  });
  for (int64_t segment = segments - 1; segment >= 0; --segment) {
    const int64_t begin = segment * kSpan, span = min(kSpan, steps - begin);
    const int64_t tiles = (span + tile - 1) / tile;
    const S* first = kept + (n * segments + segment) * size;
    each_column([&](int64_t j) { copy_column(K, first + j, V, states + j, V); });
    for (int64_t g = 0; g + 1 < tiles; ++g) {
      tokens.load(in, n, begin + g * tile, tile, 0);
      each_column([&](int64_t j) {
        copy_column(K, states + j, V, between + g * size + j, V);
        for (int c = 0; c < tile; ++c) {
          if (tokens.is_reset(c)) clear_column(K, states + j, V);
          step_column(tokens, c, j, states + j, V);
        }
      });
    }
    for (int64_t g = tiles - 1; g >= 0; --g) {
      const int64_t t = begin + g * tile;
      const int count = static_cast<int>(min(int64_t{tile}, begin + span - t));
      tokens.load(in, n, t, count, 0);
      each_column([&](int64_t j) {
        if (g + 1 < tiles) copy_column(K, between + g * size + j, V, states + j, V);
        for (int c = 0; c < count; ++c) {
          S* column = states + c * size + j;
          if (c > 0) {
            copy_column(K, column - size, V, column, V);
            step_column(tokens, c - 1, j, column, V);
          }
          if (tokens.is_reset(c)) clear_column(K, column, V);
        }
      });
      for (int c = count - 1; c >= 0; --c) {
        reverse_token(tokens, to, memory, c, in.heads.row(n, t + c), V);
      }
    }
  }
  if (!to.d_first) return;
  each_column([&](int64_t j) {
    for (int64_t i = 0; i < K; ++i) {
      const int64_t at = i * V + j;
      to.d_first.put(n * size + at, memory.d_state[at]);
    }
  });
}

/// Calls `f` with a tag of the type that activations are stored in.
template <class F>
void for_activations(DType dtype, const char* who, F&& f) {
  if (dtype == DType::BF16) return f(__nv_bfloat16{});
  for_float_type(dtype, who, std::forward<F>(f));
}

/// How `reverse_heads` is launched: the first that leaves room for two blocks on a multiprocessor,
/// or for one.
struct ReversePlan {
  int threads = 0, tile = 0;
  bool is_spilled = false;
  size_t shared = 0;
};
template <class A, class Cell>
ReversePlan plan_reverse(int64_t K, int64_t V) {
  using S = typename Typed<A>::S;
  const auto tokens = [=](int tile) {
    return static_cast<size_t>(CellTile<A, Cell>::size(K, V, tile)) * sizeof(S);
  };
  for (const size_t most : {size_t{112} << 10, size_t{160} << 10}) {
    for (const int threads : {64, 32}) {
      for (const int tile : {4, 2, 1}) {
        const auto rest = static_cast<size_t>(ReverseMemory<S, Cell>::size(K, V, tile, threads));
        const size_t bytes = tokens(tile) + rest * sizeof(S);
        if (threads <= std::max<int64_t>(V, 32) && bytes <= most)
          return {threads, tile, false, bytes};
      }
    }
  }
  int tile = 4;
  while (tile > 1 && tokens(tile) > size_t{48} << 10) tile /= 2;
  return {64, tile, true, tokens(tile)};
}

/// o, and the state after the last token; `result.state` may be `args.state`. The states before
/// spans, [heads, segments, K, V], are kept where they are already, or in fresh memory.
template <class Cell>
void run_cell(const CellArgs& args, RecurrenceResult& result) {
  for_activations(result.o.dtype(), Cell::kName, [&](auto tag) {
    using A = decltype(tag);
    using S = typename Typed<A>::S;
    const CellTensors<A, Cell> in(args, result, {});
    const int64_t K = in.heads.K, V = in.heads.V, heads = result.o.dim(0) * in.heads.H;
    if (heads * K * V == 0) return;
    const Context& on = context(result.o);
    if (args.keep && !result.kept.defined()) {
      const Shape shape = {heads, segments_of(in.heads.steps), K, V};
      result.kept = Tensor::empty(shape, dtype_of<S>, on.device);
    }
    int columns = 32, tile = kMostTile;
    const auto bytes = [&] {
      return static_cast<size_t>(CellTile<A, Cell>::size(K, columns, tile) + K * columns) *
             sizeof(S);
    };
    constexpr size_t kMost = size_t{96} << 10;
    while (tile > 1 && bytes() > kMost) tile /= 2;
    while (columns > 1 && bytes() > kMost) columns /= 2;
    ask_for_shared(run_columns<A, Cell, S>, bytes());
    const dim3 grid(static_cast<unsigned>(heads),
                    static_cast<unsigned>((V + columns - 1) / columns));
    run_columns<A, Cell, S><<<grid, columns, bytes(), on.stream>>>(
        in, Result<S>(result.o), args.state ? args.state.data<S>() : nullptr,
        result.state.data<S>(), args.keep ? result.kept.data<S>() : nullptr, tile);
    require_launched(Cell::kName);
  });
}

template <class Cell>
void reverse_cell(const CellArgs& args, const RecurrenceResult& forward, const CellGradients& to) {
  for_activations(forward.o.dtype(), Cell::kName, [&](auto tag) {
    using A = decltype(tag);
    using S = typename Typed<A>::S;
    const CellTensors<A, Cell> in(args, forward, to.d_o);
    const int64_t K = in.heads.K, V = in.heads.V, heads = forward.o.dim(0) * in.heads.H;
    if (heads * K * V == 0) return;
    const Context& on = context(forward.o);
    const ReversePlan plan = plan_reverse<A, Cell>(K, V);
    Tensor between = Tensor::empty({heads, kSpan / plan.tile - 1, K, V}, dtype_of<S>, on.device);
    Tensor spill;
    if (plan.is_spilled) {
      const int64_t size = ReverseMemory<S, Cell>::size(K, V, plan.tile, plan.threads);
      spill = Tensor::empty({heads, size}, dtype_of<S>, on.device);
    }
    ask_for_shared(reverse_heads<A, Cell, S>, plan.shared);
    reverse_heads<A, Cell, S>
        <<<static_cast<unsigned>(heads), plan.threads, plan.shared, on.stream>>>(
            in, CellResults<S, Cell>(to), forward.kept.data<S>(),
            to.d_state ? to.d_state.data<S>() : nullptr, between.data<S>(),
            spill ? spill.data<S>() : nullptr, plan.tile);
    require_launched(Cell::kName);
  });
}

/// Makes a cell known to GPUs (backends/cells.h).
template <class Cell>
bool add_cell() {
  AddedKernels<Cell>::cuda = {.forward = run_cell<Cell>, .backward = reverse_cell<Cell>};
  return true;
}

}  // namespace regla::cuda
