#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"
#include "core/random.h"

namespace regla::cuda {
namespace {

template <class S>
struct Dropout {
  int64_t count, first;
  Elements<S> x, residual;
  Result<S> y;
  S scale;             // of what is kept
  uint32_t threshold;  // of words: what is below it is dropped
  uint64_t seed, stream;

  /// W elements from x[i], which is number first + i; number n takes word n mod 4 of draw n / 4.
  template <int W>
  __device__ void at(const Random& random, int64_t i) const {
    const auto n = static_cast<uint64_t>(first + i);
    uint32_t words[4][1];
    random.draw(n / 4, words);
    S v[W], r[W] = {};
    x.load(i, v);
    if (residual) residual.load(i, r);
    for (int w = 0; w < W; ++w) {
      const uint32_t word = W == 4 ? words[w][0] : words[n % 4][0];
      v[w] = r[w] + (word >= threshold ? scale : S(0)) * v[w];
    }
    y.put(i, v);
  }
};

// Bytes: x, residual and y once.
template <int W, class S>
__global__ void drop(Dropout<S> dropout) {
  const Random random(dropout.seed, dropout.stream);
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x, packs = dropout.count / W;
  for (int64_t p = thread; p < packs; p += stride) dropout.template at<W>(random, p * W);
  if (thread < dropout.count - packs * W) dropout.template at<1>(random, packs * W + thread);
}

}  // namespace

void dropout(const DropoutArgs& args, Sink y) {
  if (!y || args.x.numel() == 0) return;
  for_sum_type(args.x.dtype(), "dropout", [&](auto tag) {
    using S = decltype(tag);
    const Context& on = context(y.tensor);
    const Dropout<S> dropout = {.count = args.x.numel(),
                                .first = args.first,
                                .x = Elements<S>(args.x),
                                .residual = Elements<S>(args.residual),
                                .y = Result<S>(y),
                                .scale = static_cast<S>(1 / (1 - args.rate)),
                                .threshold = static_cast<uint32_t>(args.rate * 0x1p32),
                                .seed = args.seed,
                                .stream = args.stream};
    for_width<S>(
        args.first,  // a draw's four numbers belong to four elements that lie together
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          const unsigned blocks = blocks_for(on, (dropout.count + W - 1) / W);
          drop<W><<<blocks, kThreads, 0, on.stream>>>(dropout);
        },
        args.x, args.residual, y.tensor);
  });
  require_launched("dropout");
}

}  // namespace regla::cuda
