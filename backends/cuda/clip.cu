#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

template <class T>
void restart_elements(const int32_t* flag, double value, Tensor x) {
  T* out = x.data<T>();
  for_each(context(x), x.numel(), [=] __device__(int64_t i) {
    if (flag[0] != 0) out[i] = static_cast<T>(value);
  });
}

__device__ double sum_in_order(const double* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

}  // namespace

/// One thread: there are few numbers, and the order of the sums is that of the CPU.
void clip_factor(const Tensor& squares, const Tensor& losses, double largest, Tensor latch,
                 Tensor report) {
  const double *square = squares.data<double>(), *losses_at = losses.data<double>();
  const int64_t n = squares.numel(), m = losses.numel();
  int32_t* stopped = latch.data<int32_t>();
  double* out = report.data<double>();
  for_each(context(report), 1, [=] __device__(int64_t) {
    const double loss = sum_in_order(losses_at, m), norm = sqrt(sum_in_order(square, n));
    if (!isfinite(loss) || !isfinite(norm)) *stopped = 1;
    out[0] = loss;
    out[1] = norm;
    out[2] = *stopped != 0 ? 0 : largest > 0 && norm > largest ? largest / norm : 1;
  });
}

void commit(const Tensor& factor, const Tensor& from, Tensor to) {
  const double* by = factor.data<double>();
  const auto* source = static_cast<const uint16_t*>(from.raw());  // every type has an even size
  auto* target = static_cast<uint16_t*>(to.raw());
  for_each(context(to), to.bytes() / 2, [=] __device__(int64_t i) {
    if (by[0] != 0) target[i] = source[i];
  });
}

void restart(const Tensor& flag, double value, Tensor x) {
  for_any_type(x.dtype(),
               [&](auto tag) { restart_elements<decltype(tag)>(flag.data<int32_t>(), value, x); });
}

}  // namespace regla::cuda
