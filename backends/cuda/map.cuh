#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// Functions of independent elements, one or two results of up to four inputs. Each tensor is read
// or written once, kWide elements a thread: the floor is the bytes of all of them.
namespace regla::cuda {

template <class S>
struct Pair {
  S first, second;
};

template <class S, int N>
struct Inputs {
  Elements<S> at[N];
};
template <class S, int M>
struct Results {
  Result<S> at[M];
};

template <int W, class S, class F, int N, int M, int... I>
__device__ void map_elements(int64_t i, const F& f, const Inputs<S, N>& in,
                             const Results<S, M>& out, std::integer_sequence<int, I...>) {
  S x[N][W], y[M][W];
  (in.at[I].load(i, x[I]), ...);
#pragma unroll
  for (int w = 0; w < W; ++w) {
    if constexpr (M == 1) {
      y[0][w] = f(x[I][w]...);
    } else {
      const Pair<S> both = f(x[I][w]...);
      y[0][w] = both.first;
      y[1][w] = both.second;
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
    if (out.at[m]) out.at[m].put(i, y[m]);
  }
}

template <int W, class S, class F, int N, int M>
__global__ void map_all(int64_t count, F f, Inputs<S, N> in, Results<S, M> out) {
  constexpr auto kEach = std::make_integer_sequence<int, N>{};
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x, packs = count / W;
  for (int64_t p = thread; p < packs; p += stride) map_elements<W>(p * W, f, in, out, kEach);
  if (thread < count - packs * W) map_elements<1>(packs * W + thread, f, in, out, kEach);
}

template <class S, class F, int N, int M, class... Tensors>
void launch_map(const F& f, const Inputs<S, N>& in, const Results<S, M>& out, const Tensor& like,
                const Tensors&... tensors) {
  const int64_t count = like.numel();
  if (count == 0) return;
  const Context& on = context(like);
  for_width<S>(
      kWide,
      [&](auto width) {
        constexpr int W = decltype(width)::value;
        const unsigned blocks = blocks_for(on, (count + W - 1) / W);
        map_all<W><<<blocks, kThreads, 0, on.stream>>>(count, f, in, out);
      },
      like, tensors...);
  require_launched("an elementwise kernel");
}

/// out[i] (+)= f(in[i]...); nothing happens when nobody wants the result.
template <class S, class F, class... Tensors>
void map(const F& f, const Sink& out, const Tensors&... in) {
  if (!out) return;
  launch_map(f, Inputs<S, sizeof...(in)>{{Elements<S>(in)...}}, Results<S, 1>{{Result<S>(out)}},
             out.tensor, in...);
}

/// The same for two results: f gives a Pair. Either may be unwanted.
template <class S, class F, class... Tensors>
void map_pair(const F& f, const Sink& first, const Sink& second, const Tensors&... in) {
  if (!first && !second) return;
  launch_map(f, Inputs<S, sizeof...(in)>{{Elements<S>(in)...}},
             Results<S, 2>{{Result<S>(first), Result<S>(second)}},
             first ? first.tensor : second.tensor, second.tensor, in...);
}

}  // namespace regla::cuda
