#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

namespace regla::cuda {
namespace {

constexpr int kHeld = 8;  // loads of a row that stay in a thread's registers

// Bytes: x and y once, the statistics.
template <class S, int W>
struct NormRow {
  int64_t N, G;
  Elements<S> x, gain, bias;
  S epsilon;
  bool center;
  Result<S> y, mean, inverse;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, kHeld> held(team, x, row * N, N);
    S sum = 0, squares = 0;
    if (center) {
      held.each([&](int64_t, const S(&v)[W]) {
        for (int w = 0; w < W; ++w) sum += v[w];
      });
      sum = team.sum(sum);
    }
    const S m = sum / static_cast<S>(N);
    held.each([&](int64_t, const S(&v)[W]) {
      for (int w = 0; w < W; ++w) squares += (v[w] - m) * (v[w] - m);
    });
    const S scale = 1 / sqrt(team.sum(squares) / static_cast<S>(N) + epsilon);
    if (team.leads()) {
      mean.put(row, m);
      inverse.put(row, scale);
    }
    const int64_t group = row % G * N;
    held.each([&](int64_t j, const S(&v)[W]) {
      S g[W], b[W] = {}, out[W];
      gain.load(group + j, g);
      if (bias) bias.load(group + j, b);
      for (int w = 0; w < W; ++w) out[w] = (v[w] - m) * scale * g[w] + b[w];
      y.put(row * N + j, out);
    });
  }
};

// With x^ = (x - mean) * inverse and w = d_y * gain:
//   d_x = inverse * (w - mean(w) [if centred] - x^ * mean(w * x^))
// Bytes: x, d_y and d_x once.
template <class S, int W>
struct NormBackwardRow {
  int64_t N, G;
  Elements<S> x, gain, mean, inverse, d_y;
  bool center;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, kHeld> held(team, x, row * N, N), d(team, d_y, row * N, N);
    const int64_t group = row % G * N;
    const S m = team.is_active ? mean[row] : S(0), scale = team.is_active ? inverse[row] : S(0);
    S sum_w = 0, sum_wx = 0;
    held.with(d, [&](int64_t j, const S(&v)[W], const S(&dv)[W]) {
      S g[W];
      gain.load(group + j, g);
      for (int w = 0; w < W; ++w) {
        const S weighted = dv[w] * g[w];
        sum_w += weighted;
        sum_wx += weighted * (v[w] - m) * scale;
      }
    });
    const S mean_w = center ? team.sum(sum_w) / static_cast<S>(N) : S(0);
    const S mean_wx = team.sum(sum_wx) / static_cast<S>(N);
    held.with(d, [&](int64_t j, const S(&v)[W], const S(&dv)[W]) {
      S g[W], out[W];
      gain.load(group + j, g);
      for (int w = 0; w < W; ++w) {
        out[w] = scale * (dv[w] * g[w] - mean_w - (v[w] - m) * scale * mean_wx);
      }
      d_x.put(row * N + j, out);
    });
  }
};

/// d_gain and d_bias, [G, N], as sums over the rows of a matrix [R / G, G N].
// Bytes: x and d_y once more.
template <class S, int W>
struct NormParameters {
  int64_t N, G, R;
  Elements<S> x, mean, inverse, d_y;

  __device__ void operator()(int64_t r, int64_t c, S (&total)[2][W]) const {
    const int64_t row = r * G + c / N, at = r * G * N + c;
    if (row >= R) return;
    S v[W], d[W];
    x.load(at, v);
    d_y.load(at, d);
    const S m = mean[row], scale = inverse[row];
    for (int w = 0; w < W; ++w) {
      total[0][w] += d[w] * (v[w] - m) * scale;
      total[1][w] += d[w];
    }
  }
};

}  // namespace

void norm(const NormArgs& args, Tensor y, Tensor mean, Tensor inverse) {
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(context(y), R, N,
                          NormRow<S, W>{.N = N,
                                        .G = G,
                                        .x = Elements<S>(args.x),
                                        .gain = Elements<S>(args.gain),
                                        .bias = Elements<S>(args.bias),
                                        .epsilon = static_cast<S>(args.epsilon),
                                        .center = args.center,
                                        .y = Result<S>(y),
                                        .mean = Result<S>(mean),
                                        .inverse = Result<S>(inverse)});
        },
        args.x, args.gain, args.bias, y);
  });
}

void norm_backward(const NormArgs& args, const Tensor& mean, const Tensor& inverse,
                   const Tensor& d_y, Sink d_x, Sink d_gain, Sink d_bias) {
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    const Elements<S> x(args.x), means(mean), inverses(inverse), d_out(d_y);
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          if (d_gain || d_bias) {
            sum_columns<W>(context(d_y), (R + G - 1) / G, G * N,
                           NormParameters<S, W>{N, G, R, x, means, inverses, d_out},
                           ColumnSums<S, 2>{{Result<S>(d_gain), Result<S>(d_bias)}});
          }
          if (d_x) {
            for_each_row<W>(context(d_y), R, N,
                            NormBackwardRow<S, W>{.N = N,
                                                  .G = G,
                                                  .x = x,
                                                  .gain = Elements<S>(args.gain),
                                                  .mean = means,
                                                  .inverse = inverses,
                                                  .d_y = d_out,
                                                  .center = args.center,
                                                  .d_x = Result<S>(d_x)});
          }
        },
        args.x, args.gain, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
