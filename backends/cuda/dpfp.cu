#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// Deterministic parameter-free projection (Schlag et al. 2021, section 5.3), divided by its sum:
//   x' = [relu(x), relu(-x)],  f = [x' * roll(x', 1), ..., x' * roll(x', nu)],  y = f / (sum f +
//   1e-5)
// where roll(x', i)[m] = x'[m - i], around. Nothing of a row is held: its few elements are read
// again from the nearest cache.
namespace regla::cuda {
namespace {

/// x' of one row; NaN in both halves.
template <class S>
struct Halves {
  Elements<S> x;
  int64_t start, N;

  __device__ S operator[](int64_t m) const {
    const S v = x[start + (m < N ? m : m - N)];
    if (m < N) return v <= 0 ? S(0) : v;
    return v >= 0 ? S(0) : -v;
  }
  /// Element m - i, around.
  __device__ int64_t before(int64_t m, int64_t i) const { return m < i ? m - i + 2 * N : m - i; }
  __device__ int64_t after(int64_t m, int64_t i) const {
    return m + i < 2 * N ? m + i : m + i - 2 * N;
  }
  /// f at index i M + m - M, i counted from 1.
  __device__ S product(int64_t at) const {
    const int64_t i = at / (2 * N) + 1, m = at % (2 * N);
    return (*this)[m] * (*this)[before(m, i)];
  }
};

// Bytes: x and y once.
template <class S>
struct DpfpRow {
  int64_t N, nu;
  Elements<S> x;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    const Halves<S> both = {x, row * N, N};
    const int64_t count = 2 * N * nu;
    S sum = 0;
    team.each<1>(count, [&](int64_t at) { sum += both.product(at); });
    const S factor = 1 / (S(1e-5) + team.sum(sum));
    team.each<1>(count, [&](int64_t at) { y.put(row * count + at, both.product(at) * factor); });
  }
};

// Bytes: x, y, d_y and d_x once.
template <class S>
struct DpfpBackwardRow {
  int64_t N, nu;
  Elements<S> x, y, d_y;
  Result<S> d_x;

  __device__ void operator()(const Team& team, int64_t row) const {
    const Halves<S> both = {x, row * N, N};
    const int64_t M = 2 * N, count = M * nu, first = row * count;
    S sum = 0, dot = 0;
    team.each<1>(count, [&](int64_t at) {
      sum += both.product(at);
      dot += d_y[first + at] * y[first + at];
    });
    const S factor = 1 / (S(1e-5) + team.sum(sum));
    dot = team.sum(dot);
    // y = f / sum:  d_f = (d_y - sum(d_y y)) / sum;  f_i[m] = x'[m] x'[m - i]
    const auto d_both = [&](int64_t m) {
      S d = 0;
      for (int64_t i = 1; i <= nu; ++i) {
        const int64_t start = first + (i - 1) * M, after = both.after(m, i);
        d += (d_y[start + m] - dot) * factor * both[both.before(m, i)];
        d += (d_y[start + after] - dot) * factor * both[after];
      }
      return d;
    };
    team.each<1>(N, [&](int64_t n) {
      const S v = x[row * N + n];
      d_x.put(row * N + n, v > 0 ? d_both(n) : (v == 0 ? S(0) : -d_both(N + n)));
    });
  }
};

}  // namespace

void dpfp(const Tensor& x, int64_t nu, Tensor y) {
  for_sum_type(x.dtype(), "dpfp", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = x.dim(-1), R = x.numel() / N;
    for_each_row<1>(context(y), R, 2 * N * nu, DpfpRow<S>{N, nu, Elements<S>(x), Result<S>(y)});
  });
}

void dpfp_backward(const Tensor& x, int64_t nu, const Tensor& y, const Tensor& d_y, Sink d_x) {
  if (!d_x) return;
  for_sum_type(x.dtype(), "dpfp", [&](auto tag) {
    using S = decltype(tag);
    const int64_t N = x.dim(-1), R = x.numel() / N;
    for_each_row<1>(context(x), R, 2 * N * nu,
                    DpfpBackwardRow<S>{N, nu, Elements<S>(x), Elements<S>(y), Elements<S>(d_y),
                                       Result<S>(d_x)});
  });
}

}  // namespace regla::cuda
