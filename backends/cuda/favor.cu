#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// The exponent of FAVOR+'s positive random features (Choromanski et al. 2021, Lemma 1):
//   y_f = w_f x - |x|^2 / 2,  with z = W x computed before
namespace regla::cuda {
namespace {

// Bytes: z, x and y once.
template <class S, int W>
struct FavorRow {
  int64_t F, N;
  Elements<S> z, x;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    S squares = 0;
    team.each<W>(N, [&](int64_t n) {
      S v[W];
      x.load(row * N + n, v);
      for (int w = 0; w < W; ++w) squares += v[w] * v[w];
    });
    squares = team.sum(squares);
    team.each<W>(F, [&](int64_t f) {
      S v[W];
      z.load(row * F + f, v);
      for (int w = 0; w < W; ++w) v[w] -= squares / 2;
      y.put(row * F + f, v);
    });
  }
};

// d_x = -x times the row's sum of d_y. Bytes: x, d_y and d_x once.
template <class S, int W>
struct FavorBackwardRow {
  int64_t F, N;
  Elements<S> x, d_y;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    S sum = 0;
    team.each<W>(F, [&](int64_t f) {
      S v[W];
      d_y.load(row * F + f, v);
      for (int w = 0; w < W; ++w) sum += v[w];
    });
    sum = team.sum(sum);
    team.each<W>(N, [&](int64_t n) {
      S v[W];
      x.load(row * N + n, v);
      for (int w = 0; w < W; ++w) v[w] *= -sum;
      d_x.put(row * N + n, v);
    });
  }
};

/// Rows of F and of N elements that may both be loaded W at once: what both are multiples of.
int64_t common(int64_t F, int64_t N) { return F % kWide == 0 ? N : F; }

}  // namespace

void favor_exponent(const Tensor& z, const Tensor& x, Tensor y) {
  for_sum_type(z.dtype(), "favor_exponent", [&](auto tag) {
    using S = decltype(tag);
    const int64_t F = z.dim(-1), N = x.dim(-1), R = z.numel() / F;
    for_width<S>(
        common(F, N),
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(context(y), R, std::max(F, N),
                          FavorRow<S, W>{F, N, Elements<S>(z), Elements<S>(x), Result<S>(y)});
        },
        z, x, y);
  });
}

void favor_exponent_backward(const Tensor& x, const Tensor& d_y, Sink d_x) {
  if (!d_x) return;
  for_sum_type(x.dtype(), "favor_exponent", [&](auto tag) {
    using S = decltype(tag);
    const int64_t F = d_y.dim(-1), N = x.dim(-1), R = x.numel() / N;
    for_width<S>(
        common(F, N),
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(
              context(x), R, std::max(F, N),
              FavorBackwardRow<S, W>{F, N, Elements<S>(x), Elements<S>(d_y), Result<S>(d_x)});
        },
        x, d_y, d_x.tensor);
  });
}

}  // namespace regla::cuda
