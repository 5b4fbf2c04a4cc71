#include "backends/cuda/dropout.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

template <class S>
struct Dropout {
  int64_t count;
  DropoutMask<S> mask;
  Elements<S> x, residual;
  Result<S> y;

  /// What is asked for before the first number is drawn.
  template <int W>
  struct Fetched {
    typename Elements<S>::template Raw<W> x, residual;
  };
  template <int W>
  __device__ Fetched<W> fetch(int64_t i) const {
    Fetched<W> raw;
    x.template fetch<W>(i, raw.x);
    if (residual) residual.template fetch<W>(i, raw.residual);
    return raw;
  }

  /// W elements from x[i].
  template <int W>
  __device__ void drop(const Random& random, int64_t i, const Fetched<W>& raw) const {
    S f[W], v[W], r[W] = {};
    mask.draw(random, i, f);
    x.template unpack<W>(raw.x, v);
    if (residual) residual.template unpack<W>(raw.residual, r);
    for (int w = 0; w < W; ++w) v[w] = r[w] + f[w] * v[w];
    y.put(i, v);
  }
};

constexpr int kEach = 2;  // packs of a thread, a block's width apart

// Bytes: x, residual and y once.
template <int W, class S>
__global__ __launch_bounds__(kThreads) void drop(Dropout<S> dropout) {
  const Random random = dropout.mask.random();
  const int64_t first = int64_t{blockIdx.x} * kThreads * kEach + threadIdx.x;
  const int64_t packs = dropout.count / W;
  typename Dropout<S>::template Fetched<W> raw[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t p = first + e * kThreads;
    if (p < packs) raw[e] = dropout.template fetch<W>(p * W);
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t p = first + e * kThreads;
    if (p < packs) dropout.drop(random, p * W, raw[e]);
  }
  const int64_t i = packs * W + first;
  if (i < dropout.count && first < W) dropout.drop(random, i, dropout.template fetch<1>(i));
}

}  // namespace

void dropout(const DropoutArgs& args, Sink y) {
  if (!y || args.x.numel() == 0) return;
  for_sum_type(args.x.dtype(), "dropout", [&](auto tag) {
    using S = decltype(tag);
    const Context& on = context(y.tensor);
    const Dropout<S> dropout = {.count = args.x.numel(),
                                .mask = DropoutMask<S>(args),
                                .x = Elements<S>(args.x),
                                .residual = Elements<S>(args.residual),
                                .y = Result<S>(y)};
    for_width<S>(
        args.first,  // a draw's four numbers belong to four elements that lie together
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          constexpr int64_t kBlock = int64_t{kThreads} * kEach * W;
          const auto blocks = static_cast<unsigned>((dropout.count + kBlock - 1) / kBlock);
          drop<W><<<blocks, kThreads, 0, on.stream>>>(dropout);
        },
        args.x, args.residual, y.tensor);
  });
  require_launched("dropout");
}

}  // namespace regla::cuda
