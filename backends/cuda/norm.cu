#include "backends/cuda/columns.cuh"
#include "backends/cuda/kernels.h"
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
  S epsilon;
  bool center;
  Result<S> y, mean, inverse;

  __device__ void operator()(const Team& team, int64_t row) const {
    const HeldRow<S, W, P, View> held(team, x, row * N, N);
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
    const S scale = rsqrt(team.sum(squares) / static_cast<S>(N) + epsilon);
    if (team.leads()) {
      mean.put(row, m);
      inverse.put(row, scale);
    }
    const int64_t group = static_cast<uint32_t>(row) % static_cast<uint32_t>(G) * N;
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
    const HeldRow<S, W, 8> held(team, x, row * N, N), d(team, d_y, row * N, N);
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

/// The gradient of x, then those of gain and bias: for rows of any size.
template <class S, int W>
void gradients_apart(const Context& on, const NormBackwardRow<S, W>& rows, int64_t R, Sink d_gain,
                     Sink d_bias) {
  if (rows.d_x) for_each_row<W>(on, R, rows.N, rows);
  if (!d_gain && !d_bias) return;
  sum_columns<W>(on, (R + rows.G - 1) / rows.G, rows.G * rows.N,
                 NormParameters<S, W>{rows.N, rows.G, R, rows.x, rows.mean, rows.inverse, rows.d_y},
                 ColumnSums<S, 2>{{Result<S>(d_gain), Result<S>(d_bias)}});
}

// All three in one pass. A line is the G rows that meet all of gain once, and what a team loads at P
// times; a team goes from line to line and keeps the sums of its columns in registers. Teams are
// warps, or blocks where a line is long. A row is a whole line (G = 1), or lies in `row_lanes` lanes
// of one load. Bytes: x, d_y and d_x once.
template <class X, class D, int W, int P, bool IsWhole>
struct NormLines {
  static constexpr int kStats = IsWhole ? 1 : P;  // rows that a thread holds parts of

  int64_t lines;
  int G, lanes, row_lanes;
  Typed<X> x;
  Typed<D> d_y;
  Typed<float> gain, mean, inverse;
  bool center;
  Result<float> d_x;
  float* partial;  // [blocks, 2 (gain, bias), columns]

  __device__ int columns() const { return lanes * W * P; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % lanes; }
  __device__ int column(int p) const { return (p * lanes + lane()) * W; }

  __device__ void add_line(int64_t line, float (&d_gain)[P][W], float (&d_bias)[P][W]) const {
    const int64_t start = line * columns();
    Pack<X, W> raw_x[P];
    Pack<D, W> raw_d[P];
    float m[kStats], scale[kStats], of_w[kStats] = {}, of_wx[kStats] = {};
#pragma unroll
    for (int p = 0; p < P; ++p) {
      x.template fetch<W>(start + column(p), raw_x[p]);
      d_y.template fetch<W>(start + column(p), raw_d[p]);
    }
#pragma unroll
    for (int q = 0; q < kStats; ++q) {
      const int64_t row = IsWhole ? line : line * G + (q * 32 + lane()) / row_lanes;
      m[q] = mean[row];
      scale[q] = inverse[row];
    }
    float hat[P][W], w[P][W];  // x^ and d_y * gain
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int q = IsWhole ? 0 : p;
      float g[W];
      gain.load(column(p), g);
      x.template unpack<W>(raw_x[p], hat[p]);
      d_y.template unpack<W>(raw_d[p], w[p]);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        hat[p][i] = (hat[p][i] - m[q]) * scale[q];
        d_gain[p][i] += w[p][i] * hat[p][i];
        d_bias[p][i] += w[p][i];
        w[p][i] *= g[i];
        of_w[q] += w[p][i];
        of_wx[q] += w[p][i] * hat[p][i];
      }
    }
    float sum[P][W];
#pragma unroll
    for (int p = 0; p < P; ++p) d_x.before(start + column(p), sum[p]);
    const Team row = {IsWhole ? lanes : row_lanes, lane(), true};
    const float share = static_cast<float>(G) / static_cast<float>(columns());
    row.sum(of_wx);
    if (center) row.sum(of_w);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int q = IsWhole ? 0 : p;
      const float mean_w = center ? share * of_w[q] : 0, mean_wx = share * of_wx[q];
#pragma unroll
      for (int i = 0; i < W; ++i) {
        sum[p][i] += scale[q] * (w[p][i] - mean_w - hat[p][i] * mean_wx);
      }
      d_x.set(start + column(p), sum[p]);
    }
  }
};

/// A block per multiprocessor, of as many threads as have registers for `held` elements each.
constexpr int line_threads(int held) { return held <= 24 ? 384 : 256; }

template <class X, class D, int W, int P, bool IsWhole>
__global__ __launch_bounds__(line_threads(P* W)) void norm_lines(
    NormLines<X, D, W, P, IsWhole> f) {
  const int teams = static_cast<int>(blockDim.x) / f.lanes;
  const int own = static_cast<int>(threadIdx.x) / f.lanes;
  const int64_t stride = int64_t{gridDim.x} * teams;
  float d_gain[P][W] = {}, d_bias[P][W] = {};
  for (int64_t line = int64_t{blockIdx.x} * teams + own; line < f.lines; line += stride) {
    f.add_line(line, d_gain, d_bias);
  }
  __shared__ float sums[2][32 * W * P];  // of the teams so far
  const int columns = f.columns();
  float* out = f.partial + int64_t{blockIdx.x} * 2 * columns;
  for (int turn = 0; turn < teams; ++turn) {
    const bool is_last = turn + 1 == teams;
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int c = f.column(p);
      for (int i = 0; i < W && own == turn; ++i) {
        const float of_gain = d_gain[p][i] + (turn > 0 ? sums[0][c + i] : 0);
        const float of_bias = d_bias[p][i] + (turn > 0 ? sums[1][c + i] : 0);
        (is_last ? out : sums[0])[c + i] = of_gain;
        (is_last ? out + columns : sums[1])[c + i] = of_bias;
      }
    }
    __syncthreads();
  }
}

struct NormGradients {
  const NormArgs& args;
  const Tensor &mean, &inverse, &d_y;
  Sink d_x, d_gain, d_bias;
  int64_t N = args.x.dim(-1), R = args.x.numel() / N, columns = args.gain.numel(), G = columns / N;
};

template <class X, class D, int W, int P, bool IsWhole>
void gradients_together(const NormGradients& a, int lanes) {
  const Context& on = context(a.d_y);
  const int threads = std::max(lanes, lanes == 32 ? line_threads(P * W) : 0);
  const int64_t lines = a.R / a.G, teams = threads / lanes;
  const auto blocks = std::min<int64_t>(on.multiprocessors, (lines + teams - 1) / teams);
  Tensor partial = Tensor::empty({blocks, 2, a.columns}, DType::F32, on.device);
  const NormLines<X, D, W, P, IsWhole> f = {.lines = lines,
                                            .G = static_cast<int>(a.G),
                                            .lanes = lanes,
                                            .row_lanes = static_cast<int>(a.N / W),
                                            .x = Typed<X>(a.args.x),
                                            .d_y = Typed<D>(a.d_y),
                                            .gain = Typed<float>(a.args.gain),
                                            .mean = Typed<float>(a.mean),
                                            .inverse = Typed<float>(a.inverse),
                                            .center = a.args.center,
                                            .d_x = Result<float>(a.d_x),
                                            .partial = partial.data<float>()};
  norm_lines<<<static_cast<unsigned>(blocks), threads, 0, on.stream>>>(f);
  add_partial(on, blocks, a.columns, partial.data<float>(),
              ColumnSums<float, 2>{{Result<float>(a.d_gain), Result<float>(a.d_bias)}});
}

/// Chooses the team of a line, of whose threads each holds 8, 16, 24 or 32 elements; false where
/// there is none, or a row is no part of a load.
template <class X, class D, int W, bool IsWhole>
bool went_together(const NormGradients& a) {
  constexpr int kLoads = 8 / W;  // of 8 elements
  const bool is_long = a.columns > 32 * 32;
  const int64_t lanes = is_long ? kThreads : 32, row_lanes = a.N / W;
  const bool are_parts = !is_long && 32 % row_lanes == 0 && a.R % a.G == 0;
  if (a.R == 0 || a.columns % (lanes * 8) != 0 || !(IsWhole || are_parts)) return false;
  const auto run = [&](auto loads) {
    gradients_together<X, D, W, decltype(loads)::value, IsWhole>(a, static_cast<int>(lanes));
    return true;
  };
  switch (a.columns / (lanes * 8)) {
    case 1:
      return run(std::integral_constant<int, kLoads>{});
    case 2:
      return run(std::integral_constant<int, 2 * kLoads>{});
    case 3:
      return run(std::integral_constant<int, 3 * kLoads>{});
    case 4:
      return run(std::integral_constant<int, 4 * kLoads>{});
    default:
      return false;
  }
}

/// The types and shapes of training: whole rows in F32, heads in BF16.
bool went_together(const NormGradients& a) {
  const auto are_rows_of = [&](int width) { return a.N % width == 0; };
  const DType x = a.args.x.dtype(), d_y = a.d_y.dtype();
  if (!a.d_x || !(a.d_gain || a.d_bias)) return false;
  if (a.G == 1 && x == DType::F32 && are_rows_of(kWide) &&
      are_aligned<kWide>(a.args.x, a.args.gain, a.d_y, a.d_x.tensor)) {
    return d_y == DType::F32 ? went_together<float, float, kWide, true>(a)
                             : went_together<float, __nv_bfloat16, kWide, true>(a);
  }
  if (x == DType::BF16 && are_rows_of(kWidest) &&
      are_aligned<kWidest>(a.args.x, a.args.gain, a.d_y, a.d_x.tensor)) {
    return went_together<__nv_bfloat16, __nv_bfloat16, kWidest, false>(a);
  }
  return false;
}

}  // namespace

void norm(const NormArgs& args, Tensor y, Tensor mean, Tensor inverse) {
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    for_row_loads<S>(
        N,
        [&](auto loads, auto held) {
          using Loads = decltype(loads);
          constexpr int P = decltype(held)::value;
          for_each_row<Loads::kWidth, P>(
              context(y), R, N,
              NormRow<Loads, P>{.N = N,
                                .G = G,
                                .x = typename Loads::View(args.x),
                                .gain = Typed<S>(args.gain),
                                .bias = Typed<S>(args.bias),
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
  if (went_together({args, mean, inverse, d_y, d_x, d_gain, d_bias})) return;
  for_sum_type(args.x.dtype(), "norm", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = args.x.dim(-1), R = args.x.numel() / N, G = args.gain.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          gradients_apart(context(d_y),
                          NormBackwardRow<S, W>{.N = N,
                                                .G = G,
                                                .x = Elements<S>(args.x),
                                                .gain = Elements<S>(args.gain),
                                                .mean = Elements<S>(mean),
                                                .inverse = Elements<S>(inverse),
                                                .d_y = Elements<S>(d_y),
                                                .center = args.center,
                                                .d_x = Result<S>(d_x)},
                          R, d_gain, d_bias);
        },
        args.x, args.gain, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
