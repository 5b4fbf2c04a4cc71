#include "backends/cuda/dropout.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/norm.cuh"
#include "backends/cuda/rows.cuh"
#include "backends/dropout_norm.h"

// residual + dropout(x) and its norm: a row of the sum is normed while it is in registers. The mask
// is kept as bits, since the pass over the gradients has too few warps to draw it again.
namespace regla::cuda {
namespace {

// A row is P loads of four elements of each of its team's threads. Bytes: residual, x, sum and y
// once, the statistics, a bit for each element.
template <int P>
struct DropoutNormRow {
  static constexpr int W = kWide;

  int64_t N;
  DropoutMask<float> mask;
  Typed<__nv_bfloat16> x;
  Typed<float> residual, gain, bias;
  float share, epsilon;  // 1 / N
  bool center;
  Result<float> sum, y;
  float *mean, *inverse;
  KeptElements* kept;  // [R, lanes]

  __device__ void operator()(const Team& team, int64_t row) const {
    const auto place = [&](int p) { return (p * team.lanes + team.lane) * W; };
    Pack<__nv_bfloat16, W> raw_x[P];
    Pack<float, W> raw_residual[P];
    if (team.is_active) {
#pragma unroll
      for (int p = 0; p < P; ++p) {
        x.template fetch<W>(row * N + place(p), raw_x[p]);
        residual.template fetch<W>(row * N + place(p), raw_residual[p]);
      }
    }
    const Random random = mask.random();
    KeptElements stayed;
    float v[P][W] = {}, total = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < P && team.is_active; ++p) {
      float f[W], dropped[W];
      mask.draw(random, row * N + place(p), f);
      stayed.add(p, f);
      x.template unpack<W>(raw_x[p], dropped);
      residual.template unpack<W>(raw_residual[p], v[p]);
      for (int w = 0; w < W; ++w) total += v[p][w] += f[w] * dropped[w];
      sum.set(row * N + place(p), v[p]);
    }
    const float m = center ? team.sum(total) * share : 0;
#pragma unroll
    for (int p = 0; p < P && team.is_active; ++p) {
      for (int w = 0; w < W; ++w) squares += (v[p][w] - m) * (v[p][w] - m);
    }
    const float scale = rsqrt(team.sum(squares) * share + epsilon);
    if (!team.is_active) return;
    kept[row * team.lanes + team.lane] = stayed;
    if (team.lane == 0) {
      mean[row] = m;
      inverse[row] = scale;
    }
#pragma unroll
    for (int p = 0; p < P; ++p) {
      float g[W], b[W];
      gain.load(place(p), g);
      bias.load(place(p), b);
      for (int w = 0; w < W; ++w) v[p][w] = (v[p][w] - m) * scale * g[w] + b[w];
      y.set(row * N + place(p), v[p]);
    }
  }
};

/// The types and shapes of training.
bool are_together(const DropoutArgs& drop, const NormArgs& norm, const Tensor& y) {
  return drop.rate > 0 && drop.first % kWide == 0 && y.dtype() == DType::BF16 &&
         drop.x.dtype() == DType::BF16 && norm.x.numel() > 0 &&
         norm.gain.numel() == norm.x.dim(-1) && norm.bias.defined() &&
         are_aligned<kWide>(drop.x, drop.residual, norm.x, norm.gain, norm.bias, y);
}

}  // namespace

void dropout_norm(const DropoutArgs& drop, const NormArgs& norm, DropoutNormResult& result) {
  const int64_t N = norm.x.dim(-1), R = norm.x.numel() / std::max<int64_t>(N, 1);
  const int lanes = lanes_of_line(N);
  const bool went =
      are_together(drop, norm, result.y) && for_line_loads<kWide>(N, lanes, [&](auto loads) {
        constexpr int P = decltype(loads)::value;
        static_assert(P * kWide <= 32, "a thread has a bit for each of its elements");
        const Context& on = context(norm.x);
        if (!result.kept) result.kept = Tensor::empty({R, lanes}, DType::I32, on.device);
        const DropoutNormRow<P> f = {
            .N = N,
            .mask = DropoutMask<float>(drop),
            .x = Typed<__nv_bfloat16>(drop.x),
            .residual = Typed<float>(drop.residual),
            .gain = Typed<float>(norm.gain),
            .bias = Typed<float>(norm.bias),
            .share = 1 / static_cast<float>(N),
            .epsilon = static_cast<float>(norm.epsilon),
            .center = norm.center,
            .sum = Result<float>(norm.x),
            .y = Result<float>(result.y),
            .mean = result.mean.data<float>(),
            .inverse = result.inverse.data<float>(),
            .kept = reinterpret_cast<KeptElements*>(result.kept.data<int32_t>())};
        for_each_row<kWide, P>(on, R, N, f);
      });
  if (!went) dropout_norm_by_parts(drop, norm, result);
}

void dropout_norm_backward(const DropoutArgs& drop, const NormArgs& norm,
                           const DropoutNormResult& forward,
                           const DropoutNormGradients& gradients) {
  if (forward.kept && norm_branch_backward(norm, forward, DropoutMask<float>(drop), gradients)) {
    return;
  }
  dropout_norm_backward_by_parts(drop, norm, forward, gradients);
}

}  // namespace regla::cuda
