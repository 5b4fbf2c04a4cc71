#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "backends/cuda/cell_tile.cuh"
#include "backends/cuda/chains.cuh"
#include "backends/cuda/context.h"

// Runs any cell token by token, for any sizes: the kernels of a recurrence that has no faster ones,
// and what every faster kernel is compared with.
//
// Forward: columns of a state never meet, so a block has some columns of one head and a thread one,
// in shared memory; what the cell reads of the next tokens, a tile, arrives there together.
// Backward: a block has a head, a thread every so many of its columns. It goes through the spans of
// 64 tokens from the last, forward once more from the state that was kept before the span, writing
// the states before every token to scratch memory, and back, while the state before the next token
// is on its way. Each thread adds up the gradients of keys and scalars for its columns, and after
// every token the block adds those sums up in the order of the threads.
//
// A thread's numbers lie side by side, an odd number of them apart from the next thread's: threads
// that read the same entry meet in no bank, and the cell is compiled for strides of 1.
namespace regla::cuda {

/// From a thread's numbers to the next one's.
__host__ __device__ constexpr int64_t odd(int64_t count) { return count | 1; }

/// One token over one column, whose entries are `pitch` apart; the result is o.
template <class A, class Cell, class S>
__device__ S step_column(const CellTile<A, Cell>& tokens, int c, int64_t j, S* column,
                         int64_t pitch) {
  S o, room[Cell::kRoom + 1], values[CellTensors<A, Cell>::kValues];
  Cell::step(recurrence::Sizes{tokens.K, 1, pitch}, tokens.inputs(c, j, values), column, &o, room);
  return o;
}

/// `first` may be null (zeros), and `kept`.
template <class A, class Cell, class S>
__global__ void run_columns(CellTensors<A, Cell> in, Result<S> o, const S* first, S* last, S* kept,
                            int tile) {
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps, spans = spans_of(steps);
  const int64_t n = blockIdx.x, columns = blockDim.x, begin = int64_t{blockIdx.y} * columns;
  const int64_t mine = threadIdx.x, j = begin + mine;
  const bool exists = j < V;
  CellTile<A, Cell> tokens(shared_memory<S>(), K, columns, tile);
  S* column = shared_memory<S>() + CellTile<A, Cell>::size(K, columns, tile) + mine * odd(K);
  copy_column<S>(K, exists && first != nullptr ? first + n * K * V + j : nullptr, V, column, 1);
  for (int64_t t = 0; t < steps; t += tile) {
    if (kept != nullptr && exists && t % kSpan == 0) {
      copy_column(K, column, 1, kept + (n * spans + t / kSpan) * K * V + j, V);
    }
    const int count = static_cast<int>(min(int64_t{tile}, steps - t));
    tokens.load(in, n, t, count, begin);
    for (int c = 0; c < count && exists; ++c) {
      if (tokens.is_reset(c)) clear_column(K, column, 1);
      o.put(in.heads.row(n, t + c) * V + j, step_column(tokens, c, mine, column, 1));
    }
  }
  if (exists) copy_column(K, column, 1, last + n * K * V + j, V);
}

/// What a block of `reverse_heads` works on: in shared memory, a thread's numbers side by side, or,
/// spilled, in memory, where they lie so that threads read neighbours.
template <class S, class Cell, bool kSpilled>
struct ReverseMemory {
  static constexpr int64_t kKeys = Cell::kKeys.all(), kScalars = Cell::kScalars.all();

  S* memory;
  int64_t K, V, threads;

  static __host__ __device__ int64_t sums(int64_t K) { return kKeys * K + kScalars; }
  static __host__ __device__ int64_t size(int64_t K, int64_t V, int64_t threads) {
    return kSpilled ? 3 * K * V + threads * sums(K) : 3 * V * odd(K) + threads * odd(sums(K));
  }

  /// Between the entries of a column, and of a thread's sums.
  __device__ int64_t pitch() const { return kSpilled ? V : 1; }
  __device__ int64_t sum_pitch() const { return kSpilled ? threads : 1; }

  /// Column j of the state before one token and before the next: 0, 1; of the gradient: 2.
  __device__ S* column(int which, int64_t j) const {
    return memory + (kSpilled ? which * K * V + j : (which * V + j) * odd(K));
  }
  /// Of thread c, over its columns: gradients of the keys [kKeys, K] and of the scalars.
  __device__ S* sums_of(int64_t c) const {
    return memory + (kSpilled ? 3 * K * V + c : 3 * V * odd(K) + c * odd(sums(K)));
  }
  /// One of these sums over all threads, whole warps, in an order of its own; it begins again at 0.
  __device__ S total(int64_t which) const {
    S* const parts = sums_of(0) + which * sum_pitch();
    const int64_t apart = kSpilled ? 1 : odd(sums(K));
    Chains<S> sum;
#pragma unroll 2
    for (int64_t c = 0; c < threads; c += sum.kCount) {
#pragma unroll
      for (int i = 0; i < sum.kCount; ++i) sum.at[i] += parts[(c + i) * apart];
    }
#pragma unroll 16
    for (int64_t c = 0; c < threads; ++c) parts[c * apart] = 0;
    return sum.total();
  }
};

/// Reverses token c of the tile, whose row is `row`, over all columns of a head. `which` state is
/// the one before it.
template <class A, class Cell, class S, bool kSpilled>
__device__ void reverse_token(const CellTile<A, Cell>& tokens, const CellResults<S, Cell>& to,
                              const ReverseMemory<S, Cell, kSpilled>& memory, int which, int c,
                              int64_t row) {
  constexpr int64_t kKeys = Cell::kKeys.all(), kScalars = Cell::kScalars.all();
  const int64_t K = memory.K, V = memory.V;
  const recurrence::Sizes n = {K, 1, memory.pitch()};
  S* const sums = memory.sums_of(threadIdx.x);
  for (int64_t j = threadIdx.x; j < V; j += blockDim.x) {
    S values[CellTensors<A, Cell>::kValues], room[Cell::kRoom + 1];
    S d_values[Cell::kValues.all() + 1] = {}, d_scalars[kScalars + 1] = {};
    const recurrence::GradientPlaces<Cell, S> at = {sums, d_values, d_scalars, memory.sum_pitch()};
    S* const d_state = memory.column(2, j);
    const S d_o = tokens.d_o(c, j);
    Cell::step_backward(n, tokens.inputs(c, j, values), memory.column(which, j), &d_o, d_state,
                        at.gradients(n), room);
    if (tokens.is_reset(c)) clear_column(K, d_state, n.pitch);
    for (size_t r = 0; r < Cell::kValues.all(); ++r) {
      if (to.values[r]) to.values[r].put(row * V + j, d_values[r]);
    }
#pragma unroll
    for (int64_t r = 0; r < kScalars; ++r) {
      sums[(kKeys * K + r) * memory.sum_pitch()] += d_scalars[r];
    }
  }
  __syncthreads();
#pragma unroll
  for (int64_t r = 0; r < kKeys; ++r) {
    const Result<S>& out = to.keys[static_cast<size_t>(r)];
    for (int64_t i = threadIdx.x; out && i < K; i += blockDim.x) {
      out.put(row * K + i, memory.total(r * K + i));
    }
  }
#pragma unroll
  for (int64_t r = 0; r < kScalars; ++r) {
    const Result<S>& out = to.scalars[static_cast<size_t>(r)];
    if (out && threadIdx.x == r % blockDim.x) out.put(row, memory.total(kKeys * K + r));
  }
  __syncthreads();
}

/// `states`: room for those before the tokens of a span, [heads, kSpan, K, V]. `spill`: for what
/// does not fit in shared memory.
template <class A, class Cell, bool kSpilled, class S>
__global__ void reverse_heads(CellTensors<A, Cell> in, CellResults<S, Cell> to, const S* kept,
                              const S* d_last, S* states, S* spill, int tile) {
  using Memory = ReverseMemory<S, Cell, kSpilled>;
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps, size = K * V;
  const int64_t n = blockIdx.x, spans = spans_of(steps), threads = blockDim.x;
  CellTile<A, Cell> tokens(shared_memory<S>(), K, V, tile);
  S* const inside = shared_memory<S>() + CellTile<A, Cell>::size(K, V, tile);
  const Memory memory = {kSpilled ? spill + n * Memory::size(K, V, threads) : inside, K, V,
                         threads};
  const int64_t pitch = memory.pitch();
  states += n * kSpan * size;
  const auto each_column = [&](auto f) {
    for (int64_t j = threadIdx.x; j < V; j += threads) f(j);
  };
  for (int64_t i = 0; i < Memory::sums(K); ++i) {
    memory.sums_of(threadIdx.x)[i * memory.sum_pitch()] = 0;
  }
  each_column([&](int64_t j) {
    const S* from = d_last != nullptr ? d_last + n * size + j : nullptr;
    copy_column(K, from, V, memory.column(2, j), pitch);
  });
  for (int64_t span = spans - 1; span >= 0; --span) {
    const int64_t begin = span * kSpan, last = min(steps - begin, kSpan) - 1;
    const S* first = kept + (n * spans + span) * size;
    int which = 0;
    each_column([&](int64_t j) { copy_column(K, first + j, V, memory.column(which, j), pitch); });
    for (int64_t t = 0; t <= last; t += tile) {
      const int count = static_cast<int>(min(int64_t{tile}, last + 1 - t));
      tokens.load(in, n, begin + t, count, 0);
      each_column([&](int64_t j) {
        S* const column = memory.column(which, j);
        for (int c = 0; c < count; ++c) {
          if (tokens.is_reset(c)) clear_column(K, column, pitch);
          if (t + c == last) break;
          copy_column(K, column, pitch, states + (t + c) * size + j, V);
          step_column(tokens, c, j, column, pitch);
        }
      });
    }
    for (int64_t t = last / tile * tile; t >= 0; t -= tile) {
      const int count = static_cast<int>(min(int64_t{tile}, last + 1 - t));
      if (t + tile <= last) tokens.load(in, n, begin + t, count, 0);
      for (int c = count - 1; c >= 0; --c) {
        each_column([&](int64_t j) {
          if (t + c == 0) return;
          const S* from = states + (t + c - 1) * size + j;
          copy_column_later<kSpilled>(K, from, V, memory.column(1 - which, j), pitch);
        });
        reverse_token(tokens, to, memory, which, c, in.heads.row(n, begin + t + c));
        wait_for_copies();
        which = 1 - which;
      }
    }
  }
  if (!to.d_first) return;
  each_column([&](int64_t j) {
    for (int64_t i = 0; i < K; ++i) {
      to.d_first.put(n * size + i * V + j, memory.column(2, j)[i * pitch]);
    }
  });
}

/// Calls `f` with a tag of the type that activations are stored in.
template <class F>
void for_activations(DType dtype, const char* who, F&& f) {
  if (dtype == DType::BF16) return f(__nv_bfloat16{});
  for_float_type(dtype, who, std::forward<F>(f));
}

/// How `reverse_heads` is launched: with as many threads and as large a tile as leave room for two
/// blocks on a multiprocessor, or for one.
struct ReversePlan {
  int threads, tile;
  bool is_spilled;
  size_t shared;
};
template <class A, class Cell>
ReversePlan plan_reverse(int64_t K, int64_t V, size_t room) {
  using S = typename Typed<A>::S;
  const auto tokens = [=](int tile) {
    return static_cast<size_t>(CellTile<A, Cell>::size(K, V, tile)) * sizeof(S);
  };
  for (const size_t most : {room / 2, room}) {
    for (const int threads : {64, 32}) {
      const auto rest = static_cast<size_t>(ReverseMemory<S, Cell, false>::size(K, V, threads));
      for (const int tile : {8, 4, 2}) {
        const size_t bytes = tokens(tile) + rest * sizeof(S);
        if (threads <= std::max<int64_t>(V, 32) && bytes <= most) {
          return {threads, tile, false, bytes};
        }
      }
    }
  }
  int tile = kMostTile;
  while (tile > 1 && tokens(tile) > room / 4) tile /= 2;
  return {static_cast<int>(std::min<int64_t>((V + 31) / 32 * 32, 256)), tile, true, tokens(tile)};
}

/// o, and the state after the last token; `result.state` may be `args.state`. The states before
/// spans, [heads, spans, K, V], are kept where they are already, or in fresh memory.
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
      const Shape shape = {heads, spans_of(in.heads.steps), K, V};
      result.kept = Tensor::empty(shape, dtype_of<S>, on.device);
    }
    int columns = 32, tile = kMostTile;
    const auto bytes = [&] {
      return static_cast<size_t>(CellTile<A, Cell>::size(K, columns, tile) + odd(K) * columns) *
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
    const ReversePlan plan = plan_reverse<A, Cell>(K, V, most_shared(on));
    Tensor states = Tensor::empty({heads, kSpan, K, V}, dtype_of<S>, on.device), spill;
    if (plan.is_spilled) {
      const int64_t size = ReverseMemory<S, Cell, true>::size(K, V, plan.threads);
      spill = Tensor::empty({heads, size}, dtype_of<S>, on.device);
    }
    auto* const kernel =
        plan.is_spilled ? reverse_heads<A, Cell, true, S> : reverse_heads<A, Cell, false, S>;
    ask_for_shared(kernel, plan.shared);
    kernel<<<static_cast<unsigned>(heads), plan.threads, plan.shared, on.stream>>>(
        in, CellResults<S, Cell>(to), forward.kept.data<S>(),
        to.d_state ? to.d_state.data<S>() : nullptr, states.data<S>(),
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
