#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"
#include "backends/kernels.h"

// Recurrences token by token, for any sizes: what every faster kernel is compared with.
//
// Forward: value columns of a state never meet, so a block has some columns of one head and a
// thread one column, in shared memory. Backward: a block has a head; it runs the tokens of a
// segment again from the state that was kept before it, writes the states before every token to
// scratch memory, and goes back through them.
namespace regla::cuda {

constexpr int64_t kSpan = 64;  // tokens of a segment
constexpr int kReverseThreads = 256, kReverseWarps = kReverseThreads / 32;

constexpr int64_t segments_of(int64_t steps) { return (steps + kSpan - 1) / kSpan; }

/// Room in shared memory that a launch asks for, beyond what needs no asking.
template <class Kernel>
void ask_for_shared(Kernel* kernel, size_t bytes) {
  if (bytes <= size_t{48} << 10) return;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "reserve shared memory");
}

/// A block's shared memory, of any type.
template <class S>
__device__ S* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<S*>(bytes);
}

/// Sequences by heads: row(n, t) is token t of head n in tensors [B, T, H, ...].
struct Heads {
  int64_t steps, H, K, V;
  const int32_t* reset;  // [B, T] or null

  __device__ int64_t row(int64_t n, int64_t t) const { return (n / H * steps + t) * H + n % H; }
  __device__ bool resets(int64_t n, int64_t t) const {
    return reset != nullptr && reset[n / H * steps + t] != 0;
  }
};

/// A cell has the inputs `in`, loads what all columns share of a token into `kVectors` vectors of
/// K, and moves one column of the state over a token. `first` may be null (zeros), and `kept`.
template <class S, class Cell>
__global__ void run_columns(Cell cell, const S* first, S* last, S* kept) {
  const Heads heads = cell.in.heads;
  const int64_t K = heads.K, V = heads.V, n = blockIdx.x, pitch = blockDim.x;
  const int64_t j = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const bool exists = j < V;
  S* vectors = shared_memory<S>();
  S* column = vectors + Cell::kVectors * K + threadIdx.x;
  for (int64_t i = 0; i < K; ++i) {
    column[i * pitch] = exists && first != nullptr ? first[(n * K + i) * V + j] : S(0);
  }
  const int64_t segments = segments_of(heads.steps);
  for (int64_t t = 0; t < heads.steps; ++t) {
    if (kept != nullptr && exists && t % kSpan == 0) {
      S* to = kept + ((n * segments + t / kSpan) * K) * V + j;
      for (int64_t i = 0; i < K; ++i) to[i * V] = column[i * pitch];
    }
    __syncthreads();
    cell.load(n, t, vectors);
    __syncthreads();
    if (exists) cell.step(n, t, j, vectors, column, pitch);
  }
  if (!exists) return;
  for (int64_t i = 0; i < K; ++i) last[(n * K + i) * V + j] = column[i * pitch];
}

template <class S, class Cell>
void launch_columns(const Context& on, int64_t heads, const Cell& cell, const Tensor& first,
                    Tensor last, S* kept) {
  const int64_t K = cell.in.heads.K, V = cell.in.heads.V;
  if (heads == 0 || K == 0 || V == 0) return;
  constexpr size_t kMostShared = size_t{96} << 10;
  int64_t columns = V > 32 ? 64 : 32;
  const auto bytes = [&] {
    return static_cast<size_t>(K * (columns + Cell::kVectors)) * sizeof(S);
  };
  while (columns > 1 && bytes() > kMostShared) columns /= 2;
  ask_for_shared(run_columns<S, Cell>, bytes());
  const dim3 grid(static_cast<unsigned>(heads), static_cast<unsigned>((V + columns - 1) / columns));
  run_columns<S, Cell><<<grid, static_cast<unsigned>(columns), bytes(), on.stream>>>(
      cell, first ? first.data<S>() : nullptr, last.data<S>(), kept);
  require_launched("a recurrence");
}

/// The forward pass of a recurrence by its cell. The states before segments, [heads, segments, K,
/// V], are kept where they are already, or in fresh memory.
template <template <class> class Cell, class Args>
void forward_columns(const char* name, const Args& args, RecurrenceResult& result) {
  for_sum_type(args.q.dtype(), name, [&](auto tag) {
    using S = decltype(tag);
    const Cell<S> cell = {typename Cell<S>::Inputs(args), Result<S>(result.o)};
    const Heads& n = cell.in.heads;
    const int64_t heads = args.q.dim(0) * n.H;
    if (args.keep && !result.kept.defined()) {
      const Shape shape = {heads, segments_of(n.steps), n.K, n.V};
      result.kept = Tensor::empty(shape, dtype_of<S>, args.q.device());
    }
    S* const kept = args.keep ? result.kept.data<S>() : nullptr;
    launch_columns(context(result.o), heads, cell, args.state, result.state, kept);
  });
}

/// A single token, in place on the state.
template <template <class> class Cell, class Args>
void step_columns(const char* name, const Args& args, const Tensor& o) {
  for_sum_type(args.q.dtype(), name, [&](auto tag) {
    using S = decltype(tag);
    const Cell<S> cell = {typename Cell<S>::Inputs(args), Result<S>(o)};
    const int64_t heads = args.q.dim(0) * cell.in.heads.H;
    launch_columns(context(o), heads, cell, args.state, args.state, static_cast<S*>(nullptr));
  });
}

/// The sum over the lanes of a warp, on all of them.
template <class S>
__device__ S warp_sum(S x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

/// parts[warp][j] over all warps, in order.
template <class S>
__device__ S sum_of_warps(const S* parts, int64_t V, int64_t j) {
  S sum = 0;
  for (int w = 0; w < kReverseWarps; ++w) sum += parts[w * V + j];
  return sum;
}

/// Calls f(i, j) for this thread's part of a matrix [K, V]: rows by warps, columns by lanes.
template <class F>
__device__ void each_pair(int64_t K, int64_t V, F f) {
  for (int64_t i = threadIdx.x / 32; i < K; i += kReverseWarps) {
    for (int64_t j = threadIdx.x % 32; j < V; j += 32) f(i, j);
  }
}

/// One head per block, segments from the last to the first. A token holds in shared memory what a
/// block reads of one token, `advance`s a state over it, and `reverse`s it: `before` is the state
/// before it; `dS` comes in as the gradient of the state after it and leaves as that of the state
/// before it.
template <class S, class Token>
__global__ __launch_bounds__(kReverseThreads) void reverse_heads(typename Token::Inputs in,
                                                                 typename Token::Gradients to,
                                                                 const S* kept, Elements<S> d_last,
                                                                 S* scratch, S* gradients) {
  const int64_t K = in.heads.K, V = in.heads.V, steps = in.heads.steps, size = K * V;
  const int64_t n = blockIdx.x, segments = segments_of(steps);
  const Token token(shared_memory<S>(), K, V);
  S *states = scratch + n * kSpan * size, *dS = gradients + n * size;
  each_pair(K, V, [&](int64_t i, int64_t j) {
    dS[i * V + j] = d_last ? d_last[n * size + i * V + j] : S(0);
  });
  for (int64_t segment = segments - 1; segment >= 0; --segment) {
    const int64_t begin = segment * kSpan, count = min(kSpan, steps - begin);
    const S* first = kept + (n * segments + segment) * size;
    const auto before = [&](int64_t c) { return c == 0 ? first : states + c * size; };
    for (int64_t c = 0; c + 1 < count; ++c) {
      token.load(in, to.d_o, n, begin + c);
      token.advance(in, n, begin + c, before(c), states + (c + 1) * size);
    }
    for (int64_t c = count - 1; c >= 0; --c) {
      token.load(in, to.d_o, n, begin + c);
      token.reverse(in, to, n, begin + c, before(c), dS);
    }
  }
  if (!to.d_state0) return;
  each_pair(K, V,
            [&](int64_t i, int64_t j) { to.d_state0.put(n * size + i * V + j, dS[i * V + j]); });
}

/// The backward pass of a recurrence by its token.
template <template <class> class Token, class Args, class Gradients>
void reverse_all(const char* name, const Args& args, const RecurrenceResult& forward,
                 const Gradients& gradients) {
  for_sum_type(args.q.dtype(), name, [&](auto tag) {
    using S = decltype(tag);
    const typename Token<S>::Inputs in(args);
    const int64_t heads = args.q.dim(0) * in.heads.H, K = in.heads.K, V = in.heads.V;
    if (heads == 0) return;
    const Context& on = context(args.q);
    // The states before the tokens of a segment, and the gradient of the state.
    Tensor states = Tensor::empty({heads, kSpan, K, V}, dtype_of<S>, on.device);
    Tensor gradient = Tensor::empty({heads, K, V}, dtype_of<S>, on.device);
    const size_t bytes = Token<S>::bytes(K, V);
    ask_for_shared(reverse_heads<S, Token<S>>, bytes);
    reverse_heads<S, Token<S>><<<static_cast<unsigned>(heads), kReverseThreads, bytes, on.stream>>>(
        in, typename Token<S>::Gradients(gradients), forward.kept.data<S>(),
        Elements<S>(gradients.d_state), states.data<S>(), gradient.data<S>());
    require_launched(name);
  });
}

}  // namespace regla::cuda
