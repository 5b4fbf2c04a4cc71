#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// What a gate g lets in where its complement writes (Peng et al. 2021, Eq. 6-7):
//   y = (1 - g) x,  g = e^log_g
// for one g per row or one per element; 1 - g comes from the log and keeps its digits near 0.
namespace regla::cpu {

void write_gate(const Tensor& x, const Tensor& log_g, Tensor y) {
  for_float_type(x.dtype(), "write_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *log = log_g.data<T>();
    Sink out{y};
    if (log_g.numel() == x.numel()) {
      write<T>(out, [=](int64_t i) { return -math::expm1(log[i]) * in[i]; });
      return;
    }
    const int64_t N = x.dim(-1), R = x.numel() / N;
    T* rows = y.data<T>();
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T complement = -math::expm1(log[r]);
        for (int64_t j = 0; j < N; ++j) rows[r * N + j] = complement * in[r * N + j];
      }
    });
  });
}

// d_x = (1 - g) d_y,  d_log_g = -g x d_y, summed over a row that shares its gate
void write_gate_backward(const Tensor& x, const Tensor& log_g, const Tensor& d_y, Sink d_x,
                         Sink d_log_g) {
  for_float_type(x.dtype(), "write_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *log = log_g.data<T>(), *d_out = d_y.data<T>();
    if (log_g.numel() == x.numel()) {
      write<T>(d_x, [=](int64_t i) { return -math::expm1(log[i]) * d_out[i]; });
      write<T>(d_log_g, [=](int64_t i) { return -math::exp(log[i]) * in[i] * d_out[i]; });
      return;
    }
    const int64_t N = x.dim(-1), R = x.numel() / N;
    T* to_x = d_x ? d_x.tensor.data<T>() : nullptr;
    T* to_log = d_log_g ? d_log_g.tensor.data<T>() : nullptr;
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *row = in + r * N, *d = d_out + r * N;
        const T complement = -math::expm1(log[r]), g = math::exp(log[r]);
        if (to_x) {
          write_range(to_x + r * N, d_x.accumulate, 0, N,
                      [=](int64_t j) { return complement * d[j]; });
        }
        if (!to_log) continue;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < N; ++j) dot += row[j] * d[j];
        write_range(to_log, d_log_g.accumulate, r, r + 1, [=](int64_t) { return -g * dot; });
      }
    });
  });
}

}  // namespace regla::cpu
