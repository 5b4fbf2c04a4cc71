#include <algorithm>
#include <cmath>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

/// Sine and cosine of pi times x, x from an angle in double: at position 10^5 a float angle has
/// lost its last digits. Less whole turns it fits a float.
__device__ void sin_cos_of_turns(double turns, float& sine, float& cosine) {
  sincospif(static_cast<float>(2 * (turns - rint(turns))), &sine, &cosine);
}
__device__ void sin_cos_of_turns(double turns, double& sine, double& cosine) {
  sincospi(2 * turns, &sine, &cosine);
}

template <class S>
struct Rope {
  int64_t tokens, H, K, half;
  double log2_base;
  bool inverse;
  Elements<S> x;
  const int32_t* positions;
  Result<S> y;
};

constexpr int kPairs = 32, kHeads = 8;

// A thread has a pair of features, or one that does not turn, of every 8th head of a token; its
// frequency is computed once. Bytes: x and y once.
template <class S>
__global__ __launch_bounds__(kPairs* kHeads) void turn(Rope<S> rope) {
  const int64_t i = int64_t{blockIdx.y} * kPairs + threadIdx.x;
  const int64_t half = rope.half, rest = rope.K - 2 * half;
  if (i >= half + rest) return;
  constexpr double kInverseTurn = 0.15915494309189533577;
  const double frequency =
      exp2(-rope.log2_base * static_cast<double>(i) / static_cast<double>(half)) * kInverseTurn;
  for (int64_t token = blockIdx.x; token < rope.tokens; token += gridDim.x) {
    S sine = 0, cosine = 1;
    if (i < half) {
      sin_cos_of_turns(frequency * rope.positions[token], sine, cosine);
      if (rope.inverse) sine = -sine;
    }
    for (int64_t h = threadIdx.y; h < rope.H; h += kHeads) {
      const int64_t row = (token * rope.H + h) * rope.K;
      if (i < half) {
        const S a = rope.x[row + i], b = rope.x[row + half + i];
        rope.y.put(row + i, a * cosine - b * sine);
        rope.y.put(row + half + i, b * cosine + a * sine);
      } else {
        rope.y.put(row + half + i, rope.x[row + half + i]);
      }
    }
  }
}

}  // namespace

void rope(const RopeArgs& args, Sink y) {
  if (!y || args.x.numel() == 0) return;
  for_sum_type(args.x.dtype(), "rope", [&](auto tag) {
    using S = decltype(tag);
    const Context& on = context(y.tensor);
    const int64_t K = args.x.dim(3), half = args.rotary / 2;
    const Rope<S> rope = {.tokens = args.x.dim(0) * args.x.dim(1),
                          .H = args.x.dim(2),
                          .K = K,
                          .half = half,
                          .log2_base = std::log2(args.base),
                          .inverse = args.inverse,
                          .x = Elements<S>(args.x),
                          .positions = args.positions.data<int32_t>(),
                          .y = Result<S>(y)};
    const int64_t tiles = (K - half + kPairs - 1) / kPairs;
    const int64_t most = std::max<int64_t>(1, int64_t{on.multiprocessors} * 8 / tiles);
    const dim3 grid(static_cast<unsigned>(std::min(rope.tokens, most)),
                    static_cast<unsigned>(tiles));
    turn<<<grid, dim3(kPairs, kHeads), 0, on.stream>>>(rope);
  });
  require_launched("rope");
}

}  // namespace regla::cuda
