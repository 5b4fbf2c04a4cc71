#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

// The exponent of FAVOR+'s positive random features (Choromanski et al. 2021, Lemma 1):
//   y_f = w_f x - |x|^2 / 2,  with z = W x computed before
namespace regla::cpu {

void favor_exponent(const Tensor& z, const Tensor& x, Tensor y) {
  for_float_type(z.dtype(), "favor_exponent", [&](auto tag) {
    using T = decltype(tag);
    const int64_t F = z.dim(-1), N = x.dim(-1), R = z.numel() / F;
    const T *in = z.data<T>(), *vectors = x.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(F + N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *row = in + r * F, *vector = vectors + r * N;
        T squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t n = 0; n < N; ++n) squares += vector[n] * vector[n];
        for (int64_t f = 0; f < F; ++f) out[r * F + f] = row[f] - squares / 2;
      }
    });
  });
}

void favor_exponent_backward(const Tensor& x, const Tensor& d_y, Sink d_x) {
  for_float_type(x.dtype(), "favor_exponent", [&](auto tag) {
    using T = decltype(tag);
    const int64_t F = d_y.dim(-1), N = x.dim(-1), R = x.numel() / N;
    const T *vectors = x.data<T>(), *d_out = d_y.data<T>();
    T* out = d_x.tensor.data<T>();
    parallel_for(R, row_grain(F + N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *vector = vectors + r * N, *d = d_out + r * F;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t f = 0; f < F; ++f) sum += d[f];
        write_range(out + r * N, d_x.accumulate, 0, N, [=](int64_t n) { return -vector[n] * sum; });
      }
    });
  });
}

}  // namespace regla::cpu
