#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

namespace regla::cpu {

void softmax(const Tensor& x, Tensor y) {
  for_float_type(x.dtype(), "softmax", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = x.dim(-1), R = N == 0 ? 0 : x.numel() / N;
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = in + r * N;
        T* result = out + r * N;
        const T largest = max_of(row[0], row, N);
        const T scale = 1 / math::exponentials(row, largest, N, result);
        for (int64_t j = 0; j < N; ++j) result[j] *= scale;
      }
    });
  });
}

// d_x = y * (d_y - sum(y * d_y))
void softmax_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_float_type(y.dtype(), "softmax", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = y.dim(-1), R = N == 0 ? 0 : y.numel() / N;
    const T *result = y.data<T>(), *d_out = d_y.data<T>();
    T* d_in = d_x.tensor.data<T>();
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *row = result + r * N, *d = d_out + r * N;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < N; ++j) dot += row[j] * d[j];
        write_range(d_in + r * N, d_x.accumulate, 0, N,
                    [=](int64_t j) { return row[j] * (d[j] - dot); });
      }
    });
  });
}

}  // namespace regla::cpu
