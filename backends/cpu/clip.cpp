#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

// The norm of a gradient, and how an update that went bad is stopped without the host: a factor of
// 0, and what reads it.
namespace regla::cpu {
namespace {

double sum_of_squares(const Tensor& x) {
  double whole = 0;
  for_float_type(x.dtype(), "sums_of_squares", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    const int64_t count = x.numel();
    // One partial sum per block, added in order: the same bits on any number of threads.
    std::vector<double> partial(static_cast<size_t>((count + kGrain - 1) / kGrain));
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      const T* block = in + begin;  // read through the closure, it would be gathered
      double total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t i = 0; i < end - begin; ++i) {
        const auto value = static_cast<double>(block[i]);
        total += value * value;
      }
      partial[static_cast<size_t>(begin / kGrain)] = total;
    });
    for (double part : partial) whole += part;
  });
  return whole;
}

}  // namespace

void sums_of_squares(const std::vector<Tensor>& x, Tensor sums) {
  auto* to = sums.data<double>();
  for (const Tensor& one : x) *to++ = one ? sum_of_squares(one) : 0;
}

void clip_factor(const Tensor& squares, const Tensor& losses, double largest, Tensor latch,
                 Tensor report) {
  const auto total = [](const Tensor& x) {
    const double* in = x.data<double>();
    double in_order = 0;
    for (int64_t i = 0; i < x.numel(); ++i) in_order += in[i];
    return in_order;
  };
  const double loss = total(losses), norm = std::sqrt(total(squares));
  int32_t& stopped = latch.data<int32_t>()[0];
  if (!std::isfinite(loss) || !std::isfinite(norm)) stopped = 1;
  double* out = report.data<double>();
  out[0] = loss;
  out[1] = norm;
  out[2] = stopped != 0 ? 0 : largest > 0 && norm > largest ? largest / norm : 1;
}

void commit(const Tensor& factor, const Tensor& from, Tensor to) {
  if (factor.data<double>()[0] == 0) return;
  const auto* source = static_cast<const char*>(from.raw());
  auto* target = static_cast<char*>(to.raw());
  parallel_for(from.bytes(), 16 * kGrain, [=](int64_t begin, int64_t end) {
    std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
  });
}

void restart(const Tensor& flag, double value, Tensor x) {
  if (flag.data<int32_t>()[0] == 0) return;
  for_any_type(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = x.data<T>();
    const T first = static_cast<T>(value);
    parallel_for(x.numel(), kGrain,
                 [=](int64_t begin, int64_t end) { std::fill(out + begin, out + end, first); });
  });
}

}  // namespace regla::cpu
