#include "backends/cuda/kernels.h"
#include "backends/cuda/norm.cuh"
#include "backends/cuda/rows.cuh"

namespace regla::cuda {
namespace {

// Bytes: x and y once, the statistics.
template <class Loads, int P>
struct NormRow {
  using View = typename Loads::View;
  using S = typename View::S;
  static constexpr int W = Loads::kWidth;

  int64_t N, G;
  View x;
  Typed<S> gain, bias;
  S share, epsilon;  // 1 / N
  bool center;
  Result<S> y, mean, inverse;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, P, View> held(team, x, row * N, N);
    const int64_t group = static_cast<uint32_t>(row) % static_cast<uint32_t>(G) * N;
    S sum = 0, squares = 0;
    if (center) {
      held.each([&](int64_t, const S(&v)[W]) {
        for (int w = 0; w < W; ++w) sum += v[w];
      });
      sum = team.sum(sum);
    }
    const S m = sum * share;
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) squares += (v[w] - m) * (v[w] - m);
    });
    const S scale = rsqrt(team.sum(squares) * share + epsilon);
    if (team.leads()) {
      mean.put(row, m);
      inverse.put(row, scale);
    }
    held.each([&](int64_t j, const S(&v)[W]) {
      S g[W], b[W] = {}, out[W];
      gain.load(group + j, g);
      if (bias) bias.load(group + j, b);
      for (int w = 0; w < W; ++w) out[w] = (v[w] - m) * scale * g[w] + b[w];
      y.put(row * N + j, out);
    });
  }
};

// Heads by lines (norm.cuh): a row lies in `row_lanes` lanes of one of P loads.
// Bytes: x and y once, the statistics.
template <int W, int P>
struct NormHeads {
  int G, row_lanes;
  Typed<__nv_bfloat16> x;
  Typed<float> gain;
  float share, epsilon;  // 1 / N
  bool center;
  Result<float> y;
  float *mean, *inverse;

  __device__ void operator()(const Team& team, int64_t line) const {
    if (!team.is_active) return;  // a whole warp
    const Team own = {row_lanes, team.lane % row_lanes, true};
    const int64_t start = line * 32 * W * P;
    const HeldRow<float, W, P, Typed<__nv_bfloat16>> held(team, x, start, 32 * W * P);
    held.each([&](int64_t j, const float(&v)[W]) {
      float sum = 0, squares = 0, g[W], out[W];
      gain.load(j, g);
      for (int w = 0; w < W; ++w) sum += v[w];
      const float m = center ? own.sum(sum) * share : 0;
      for (int w = 0; w < W; ++w) squares += (v[w] - m) * (v[w] - m);
      const float scale = rsqrt(own.sum(squares) * share + epsilon);
      const int64_t row = line * G + static_cast<int>(j) / W / row_lanes;
      if (own.lane == 0) {
        mean[row] = m;
        inverse[row] = scale;
      }
      for (int w = 0; w < W; ++w) out[w] = (v[w] - m) * scale * g[w];
      y.set(start + j, out);
    });
  }
};

/// False where heads are no parts of a load.
bool went_by_heads(const NormArgs& args, const Tensor& y, Tensor& mean, Tensor& inverse) {
  if (y.dtype() != DType::BF16 || !are_heads(args) || !are_aligned<kWidest>(y)) return false;
  const int64_t N = args.x.dim(-1), R = args.x.numel() / N, columns = args.gain.numel();
  return for_line_loads<kWidest>(columns, 32, [&](auto loads) {
    constexpr int P = decltype(loads)::value;
    const NormHeads<kWidest, P> f = {.G = static_cast<int>(columns / N),
                                     .row_lanes = static_cast<int>(N / kWidest),
                                     .x = Typed<__nv_bfloat16>(args.x),
                                     .gain = Typed<float>(args.gain),
                                     .share = 1 / static_cast<float>(N),
                                     .epsilon = static_cast<float>(args.epsilon),
                                     .center = args.center,
                                     .y = Result<float>(y),
                                     .mean = mean.data<float>(),
                                     .inverse = inverse.data<float>()};
    for_each_row<kWidest, P>(context(y), R * N / columns, columns, f);
  });
}

}  // namespace

void norm(const NormArgs& args, Tensor y, Tensor mean, Tensor inverse) {
  if (went_by_heads(args, y, mean, inverse)) return;
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    for_each_held_row<S>(
        context(y), R, N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          constexpr int P = decltype(held)::value;
          return NormRow<Loads, P>{.N = N,
                                   .G = G,
                                   .x = typename Loads::View(args.x),
                                   .gain = Typed<S>(args.gain),
                                   .bias = Typed<S>(args.bias),
                                   .share = S(1) / static_cast<S>(N),
                                   .epsilon = static_cast<S>(args.epsilon),
                                   .center = args.center,
                                   .y = Result<S>(y),
                                   .mean = Result<S>(mean),
                                   .inverse = Result<S>(inverse)};
        },
        args.x, args.gain, args.bias, y);
  });
}

}  // namespace regla::cuda
