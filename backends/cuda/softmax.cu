#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

namespace regla::cuda {
namespace {

// Bytes: x and y once.
template <class Loads, int P>
struct SoftmaxRow {
  using View = typename Loads::View;
  using S = typename View::S;
  static constexpr int W = Loads::kWidth;

  int64_t N;
  View x;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, P, View> held(team, x, row * N, N);
    S largest = -std::numeric_limits<S>::infinity(), sum = 0;
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) largest = largest > v[w] ? largest : v[w];
    });
    largest = team.max(largest);
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) sum += exp(v[w] - largest);
    });
    const S scale = 1 / team.sum(sum);
    held.each([&](int64_t j, const S(&v)[W]) {
      S out[W];
      for (int w = 0; w < W; ++w) out[w] = exp(v[w] - largest) * scale;
      y.put(row * N + j, out);
    });
  }
};

// d_x = y * (d_y - sum(y * d_y)). Bytes: y, d_y and d_x once.
template <class Loads, int P>
struct SoftmaxBackwardRow {
  using View = typename Loads::View;
  using S = typename View::S;
  static constexpr int W = Loads::kWidth;

  int64_t N;
  View y, d_y;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, P, View> held(team, y, row * N, N), d(team, d_y, row * N, N);
    S dot = 0;
    held.with(d, [&](int64_t, const S(&v)[W], const S(&dv)[W]) {
      for (int w = 0; w < W; ++w) dot += v[w] * dv[w];
    });
    dot = team.sum(dot);
    held.with(d, [&](int64_t j, const S(&v)[W], const S(&dv)[W]) {
      S out[W];
      for (int w = 0; w < W; ++w) out[w] = v[w] * (dv[w] - dot);
      d_x.put(row * N + j, out);
    });
  }
};

}  // namespace

void softmax(const Tensor& x, Tensor y) {
  for_sum_type(x.dtype(), "softmax", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = x.dim(-1), R = N == 0 ? 0 : x.numel() / N;
    for_each_held_row<S>(
        context(y), R, N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          constexpr int P = decltype(held)::value;
          return SoftmaxRow<Loads, P>{N, typename Loads::View(x), Result<S>(y)};
        },
        x, y);
  });
}

void softmax_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  if (!d_x) return;
  for_sum_type(y.dtype(), "softmax", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = y.dim(-1), R = N == 0 ? 0 : y.numel() / N;
    for_each_held_row<S>(
        context(y), R, N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          using View = typename Loads::View;
          constexpr int P = decltype(held)::value;
          return SoftmaxBackwardRow<Loads, P>{N, View(y), View(d_y), Result<S>(d_x)};
        },
        y, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
