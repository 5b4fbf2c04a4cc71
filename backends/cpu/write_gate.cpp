#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

// What a gate g lets in where its complement writes (Peng et al. 2021, Eq. 6-7):
//   y = (1 - g) x,  g = e^log_g
// for one g per row or one per element; 1 - g comes from the log and keeps its digits near 0.
namespace regla::cpu {

void write_gate(const Tensor& x, const Tensor& log_g, Tensor y) {
  for_sums_of(x, "write_gate", [&](auto tag) {
    using T = decltype(tag);
    if (log_g.numel() == x.numel()) {
      map<T>(
          Sink{y}, [](T in, T log) { return -math::expm1(log) * in; }, x, log_g);
      return;
    }
    const int64_t N = x.dim(-1), R = x.numel() / N;
    const Input<T> rows(x), logs(log_g);
    const Output<T> out(y);
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      std::vector<T> room = rows.room(N), log_room = logs.room(1);
      for (int64_t r = begin; r < end; ++r) {
        const T complement = -math::expm1(*logs.read(r, 1, log_room));
        const T* in = rows.read(r * N, N, room);
        out.write(r * N, N, [=](int64_t j) { return complement * in[j]; });
      }
    });
  });
}

// d_x = (1 - g) d_y,  d_log_g = -g x d_y, summed over a row that shares its gate
void write_gate_backward(const Tensor& x, const Tensor& log_g, const Tensor& d_y, Sink d_x,
                         Sink d_log_g) {
  for_sums_of(x, "write_gate", [&](auto tag) {
    using T = decltype(tag);
    if (log_g.numel() == x.numel()) {
      map<T>(
          d_x, [](T log, T d) { return -math::expm1(log) * d; }, log_g, d_y);
      map<T>(
          d_log_g, [](T in, T log, T d) { return -math::exp(log) * in * d; }, x, log_g, d_y);
      return;
    }
    const int64_t N = x.dim(-1), R = x.numel() / N;
    const Input<T> rows(x), logs(log_g), d_rows(d_y);
    const Output<T> to_x(d_x), to_log(d_log_g);
    parallel_for(R, row_grain(N), [&](int64_t begin, int64_t end) {
      std::vector<T> room = rows.room(N), d_room = d_rows.room(N), log_room = logs.room(1);
      for (int64_t r = begin; r < end; ++r) {
        const T *row = rows.read(r * N, N, room), *d = d_rows.read(r * N, N, d_room);
        const T log = *logs.read(r, 1, log_room);
        const T complement = -math::expm1(log), g = math::exp(log);
        if (to_x) to_x.write(r * N, N, [=](int64_t j) { return complement * d[j]; });
        if (!to_log) continue;
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < N; ++j) dot += row[j] * d[j];
        to_log.write(r, 1, [=](int64_t) { return -g * dot; });
      }
    });
  });
}

}  // namespace regla::cpu
