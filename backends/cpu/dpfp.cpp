#include <algorithm>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

// Deterministic parameter-free projection (Schlag et al. 2021, section 5.3), divided by its sum:
//   x' = [relu(x), relu(-x)],  f = [x' * roll(x', 1), ..., x' * roll(x', nu)],  y = f / (sum f +
//   1e-5)
// where roll(x', i)[m] = x'[m - i], around.
namespace regla::cpu {
namespace {

template <class T>
constexpr T kAdded = T(1e-5);

/// x' of one row; NaN in both halves.
template <class T>
void halves(int64_t N, const T* x, T* both) {
  for (int64_t n = 0; n < N; ++n) {
    both[n] = x[n] <= 0 ? T(0) : x[n];
    both[N + n] = x[n] >= 0 ? T(0) : -x[n];
  }
}

/// f of one row; returns its sum plus 1e-5.
template <class T>
T products(int64_t M, int64_t nu, const T* both, T* f) {
  T sum = kAdded<T>;
  for (int64_t i = 1; i <= nu; ++i, f += M) {
    for (int64_t m = 0; m < i; ++m) f[m] = both[m] * both[m - i + M];
    for (int64_t m = i; m < M; ++m) f[m] = both[m] * both[m - i];
    for (int64_t m = 0; m < M; ++m) sum += f[m];
  }
  return sum;
}

}  // namespace

void dpfp(const Tensor& x, int64_t nu, Tensor y) {
  for_float_type(x.dtype(), "dpfp", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = x.dim(-1), R = x.numel() / N, M = 2 * N;
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(M * nu), [&](int64_t begin, int64_t end) {
      std::vector<T> both(static_cast<size_t>(M));
      for (int64_t r = begin; r < end; ++r) {
        halves(N, in + r * N, both.data());
        T* row = out + r * M * nu;
        const T factor = 1 / products(M, nu, both.data(), row);
        for (int64_t m = 0; m < M * nu; ++m) row[m] *= factor;
      }
    });
  });
}

void dpfp_backward(const Tensor& x, int64_t nu, const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_float_type(x.dtype(), "dpfp", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = x.dim(-1), R = x.numel() / N, M = 2 * N;
    const T *in = x.data<T>(), *features = y.data<T>(), *d_out = d_y.data<T>();
    T* out = d_x.tensor.data<T>();
    parallel_for(R, row_grain(M * nu), [&](int64_t begin, int64_t end) {
      std::vector<T> both(static_cast<size_t>(M)), d_both(both.size()), f(both.size() * nu);
      for (int64_t r = begin; r < end; ++r) {
        const T *row = features + r * M * nu, *d = d_out + r * M * nu;
        halves(N, in + r * N, both.data());
        const T factor = 1 / products(M, nu, both.data(), f.data());
        // y = f / sum:  d_f = (d_y - sum(d_y y)) / sum
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t m = 0; m < M * nu; ++m) dot += d[m] * row[m];
        std::fill(d_both.begin(), d_both.end(), T(0));
        // f_i[m] = x'[m] x'[m - i]
        for (int64_t i = 1; i <= nu; ++i, d += M) {
          for (int64_t m = 0; m < M; ++m) {
            const int64_t rolled = m < i ? m - i + M : m - i;
            const T d_f = (d[m] - dot) * factor;
            d_both[m] += d_f * both[rolled];
            d_both[rolled] += d_f * both[m];
          }
        }
        const T *x_row = in + r * N, *d_first = d_both.data(), *d_second = d_first + N;
        write_range(out + r * N, d_x.accumulate, 0, N, [=](int64_t n) {
          return x_row[n] > 0 ? d_first[n] : (x_row[n] == 0 ? T(0) : -d_second[n]);
        });
      }
    });
  });
}

}  // namespace regla::cpu
