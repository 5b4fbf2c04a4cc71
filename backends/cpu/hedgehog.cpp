#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// HedgeHog's features (Zhang et al. 2024), z = W x computed before:
//   separate   y = [softmax(z), softmax(-z)]
//   joint      y = softmax([2z, -2z])
namespace regla::cpu {
namespace {

/// y_n = e^(factor z_n - m), m at least the largest exponent; returns their sum.
template <class T>
T exponentials(int64_t N, const T* z, T factor, T m, T* y) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t n = 0; n < N; ++n) {
    y[n] = math::exp(factor * z[n] - m);
    sum += y[n];
  }
  return sum;
}

template <class T>
void multiply(int64_t N, T factor, T* y) {
  for (int64_t n = 0; n < N; ++n) y[n] *= factor;
}

template <class T>
T dot(int64_t N, const T* a, const T* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t n = 0; n < N; ++n) sum += a[n] * b[n];
  return sum;
}

}  // namespace

void hedgehog(const Tensor& z, bool joint, Tensor y) {
  for_float_type(z.dtype(), "hedgehog", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = z.dim(-1), R = z.numel() / N;
    const T* in = z.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(2 * N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = in + r * N;
        T *positive = out + r * 2 * N, *negative = positive + N;
        T largest = row[0], smallest = row[0];
#pragma omp simd reduction(max : largest) reduction(min : smallest)
        for (int64_t n = 0; n < N; ++n) {
          largest = largest > row[n] ? largest : row[n];
          smallest = smallest < row[n] ? smallest : row[n];
        }
        if (joint) {
          const T m = 2 * (largest > -smallest ? largest : -smallest);
          const T sum =
              exponentials(N, row, T(2), m, positive) + exponentials(N, row, T(-2), m, negative);
          multiply(2 * N, 1 / sum, positive);
        } else {
          multiply(N, 1 / exponentials(N, row, T(1), largest, positive), positive);
          multiply(N, 1 / exponentials(N, row, T(-1), -smallest, negative), negative);
        }
      }
    });
  });
}

// A softmax's gradient is y (d - sum y d); z enters with + in the first half and - in the second.
void hedgehog_backward(const Tensor& y, bool joint, const Tensor& d_y, Sink d_z) {
  for_float_type(y.dtype(), "hedgehog", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = y.dim(-1) / 2, R = y.numel() / (2 * N);
    const T *features = y.data<T>(), *d_out = d_y.data<T>(), factor = joint ? T(2) : T(1);
    T* out = d_z.tensor.data<T>();
    parallel_for(R, row_grain(2 * N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *y1 = features + r * 2 * N, *y2 = y1 + N, *d1 = d_out + r * 2 * N, *d2 = d1 + N;
        const T first = dot(N, y1, d1), second = dot(N, y2, d2);
        const T s1 = joint ? first + second : first, s2 = joint ? first + second : second;
        write_range(out + r * N, d_z.accumulate, 0, N, [=](int64_t n) {
          return factor * (y1[n] * (d1[n] - s1) - y2[n] * (d2[n] - s2));
        });
      }
    });
  });
}

}  // namespace regla::cpu
