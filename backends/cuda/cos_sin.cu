#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// Random Fourier features (Peng et al. 2021, Eq. 4): y = [sin z, cos z] along the inner axis.
namespace regla::cuda {
namespace {

__device__ void sin_cos(float x, float& sine, float& cosine) { sincosf(x, &sine, &cosine); }
__device__ void sin_cos(double x, double& sine, double& cosine) { sincos(x, &sine, &cosine); }

// Bytes: z and y once.
template <class S, int W>
struct CosSinRow {
  int64_t N;
  Elements<S> z;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    team.each<W>(N, [&](int64_t j) {
      S v[W], sine[W], cosine[W];
      z.load(row * N + j, v);
      for (int w = 0; w < W; ++w) sin_cos(v[w], sine[w], cosine[w]);
      y.put(row * 2 * N + j, sine);
      y.put(row * 2 * N + N + j, cosine);
    });
  }
};

// d_z = d_sin cos - d_cos sin. Bytes: y, d_y and d_z once.
template <class S, int W>
struct CosSinBackwardRow {
  int64_t N;
  Elements<S> y, d_y;
  Result<S> d_z;

  __device__ void operator()(const Team& team, int64_t row) const {
    const int64_t sines = row * 2 * N, cosines = sines + N;
    team.each<W>(N, [&](int64_t j) {
      S sine[W], cosine[W], d_sine[W], d_cosine[W], out[W];
      y.load(sines + j, sine);
      y.load(cosines + j, cosine);
      d_y.load(sines + j, d_sine);
      d_y.load(cosines + j, d_cosine);
      for (int w = 0; w < W; ++w) out[w] = d_sine[w] * cosine[w] - d_cosine[w] * sine[w];
      d_z.put(row * N + j, out);
    });
  }
};

}  // namespace

void cos_sin(const Tensor& z, Tensor y) {
  for_sum_type(z.dtype(), "cos_sin", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = z.dim(-1), R = z.numel() / N;
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(context(y), R, N, CosSinRow<S, W>{N, Elements<S>(z), Result<S>(y)});
        },
        z, y);
  });
}

void cos_sin_backward(const Tensor& y, const Tensor& d_y, Sink d_z) {
  if (!d_z) return;
  for_sum_type(y.dtype(), "cos_sin", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = y.dim(-1) / 2, R = y.numel() / (2 * N);
    for_width<S>(
        N,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(
              context(y), R, N,
              CosSinBackwardRow<S, W>{N, Elements<S>(y), Elements<S>(d_y), Result<S>(d_z)});
        },
        y, d_y, d_z.tensor);
  });
}

}  // namespace regla::cuda
