#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// Functions of independent elements, one or two results of up to four inputs. Each tensor is read
// or written once: the floor is the bytes of all of them.
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

/// A thread's loads that are on their way before the first is looked at.
template <int W, class S, int N>
struct Fetched {
  typename Elements<S>::template Raw<W> at[N];

  __device__ void fetch(int64_t i, const Inputs<S, N>& in) {
#pragma unroll
    for (int n = 0; n < N; ++n) in.at[n].template fetch<W>(i, at[n]);
  }
};

template <int W, class S, class F, int N, int M, int... I>
__device__ void map_fetched(int64_t i, const F& f, const Inputs<S, N>& in, const Results<S, M>& out,
                            const Fetched<W, S, N>& raw, std::integer_sequence<int, I...>) {
  S x[N][W], y[M][W];
  (in.at[I].template unpack<W>(raw.at[I], x[I]), ...);
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

/// A block has `kEach` packs of W elements for each of its threads, a block's width apart.
template <int W, int kEach, class S, class F, int N, int M>
__global__ __launch_bounds__(kThreads) void map_all(int64_t count, F f, Inputs<S, N> in,
                                                    Results<S, M> out) {
  constexpr auto kInputs = std::make_integer_sequence<int, N>{};
  const int64_t first = int64_t{blockIdx.x} * kThreads * kEach + threadIdx.x, packs = count / W;
  Fetched<W, S, N> raw[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t p = first + e * kThreads;
    if (p < packs) raw[e].fetch(p * W, in);
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t p = first + e * kThreads;
    if (p < packs) map_fetched<W>(p * W, f, in, out, raw[e], kInputs);
  }
  if (first < count - packs * W) {
    const int64_t i = packs * W + first;
    Fetched<1, S, N> last;
    last.fetch(i, in);
    map_fetched<1>(i, f, in, out, last, kInputs);
  }
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
        // About four loads of a thread are on their way at once: fewer leave memory idle, more
        // leave too few registers for the other threads.
        constexpr int W = decltype(width)::value, kEach = N >= 3 ? 1 : 4 / N;
        constexpr int64_t kBlock = int64_t{kThreads} * kEach * W;
        const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
        map_all<W, kEach><<<blocks, kThreads, 0, on.stream>>>(count, f, in, out);
      },
      like, tensors...);
  require_launched("an elementwise kernel");
}

/// i / n for i >= 0, which is short where i fits 32 bits.
static __device__ int64_t quotient(int64_t i, int64_t n) {
  if (((i | n) >> 32) != 0) return i / n;
  return static_cast<uint32_t>(i) / static_cast<uint32_t>(n);
}

template <int W, class S, class F>
__global__ __launch_bounds__(kThreads) void map_all_places(int64_t count, F f, Result<S> out) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x, packs = count / W;
  S v[W];
  if (thread < packs) {
#pragma unroll
    for (int w = 0; w < W; ++w) v[w] = f(thread * W + w);
    out.put(thread * W, v);
  }
  if (thread < count - packs * W) out.put(packs * W + thread, f(packs * W + thread));
}

/// out[i] (+)= f(i), where f reads numbers that lie elsewhere; nothing happens when nobody wants
/// the result.
template <class S, class F>
void map_places(const F& f, const Sink& out) {
  if (!out || out.tensor.numel() == 0) return;
  const int64_t count = out.tensor.numel();
  const Context& on = context(out.tensor);
  for_width<S>(
      kWide,
      [&](auto width) {
        constexpr int64_t kBlock = int64_t{kThreads} * decltype(width)::value;
        const auto blocks = static_cast<unsigned>((count + kBlock - 1) / kBlock);
        map_all_places<decltype(width)::value>
            <<<blocks, kThreads, 0, on.stream>>>(count, f, Result<S>(out));
      },
      out.tensor);
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
