#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// Random Fourier features (Peng et al. 2021, Eq. 4): y = [sin z, cos z] along the inner axis.
namespace regla::cpu {

void cos_sin(const Tensor& z, Tensor y) {
  for_float_type(z.dtype(), "cos_sin", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = z.dim(-1), R = z.numel() / N;
    const T* in = z.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(2 * N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = in + r * N;
        T *sine = out + r * 2 * N, *cosine = sine + N;
#pragma omp simd
        for (int64_t n = 0; n < N; ++n) math::sin_cos(row[n], sine[n], cosine[n]);
      }
    });
  });
}

// d_z = d_sin cos - d_cos sin
void cos_sin_backward(const Tensor& y, const Tensor& d_y, Sink d_z) {
  for_float_type(y.dtype(), "cos_sin", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = y.dim(-1) / 2, R = y.numel() / (2 * N);
    const T *features = y.data<T>(), *d_out = d_y.data<T>();
    T* out = d_z.tensor.data<T>();
    parallel_for(R, row_grain(2 * N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *sine = features + r * 2 * N, *cosine = sine + N;
        const T *d_sine = d_out + r * 2 * N, *d_cosine = d_sine + N;
        write_range(out + r * N, d_z.accumulate, 0, N,
                    [=](int64_t n) { return d_sine[n] * cosine[n] - d_cosine[n] * sine[n]; });
      }
    });
  });
}

}  // namespace regla::cpu
