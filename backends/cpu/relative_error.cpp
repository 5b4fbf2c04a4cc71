#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "core/parallel.h"

namespace regla::cpu {

void relative_error(const Tensor& x, const Tensor& y, Tensor error) {
  double difference = 0, square = 0;
  for_float_type(x.dtype(), "relative_error", [&](auto tag) {
    using T = decltype(tag);
    const int64_t count = x.numel();
    const T *of_x = x.data<T>(), *of_y = y.data<T>();
    // Partial sums of blocks, added in order: the same bits on any number of threads.
    const auto blocks = static_cast<size_t>((count + kGrain - 1) / kGrain);
    std::vector<double> differences(blocks), squares(blocks);
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      const T *a = of_x + begin, *b = of_y + begin;
      const auto block = static_cast<size_t>(begin / kGrain);
      differences[block] = sum_of(end - begin, [=](int64_t i) {
        const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        return d * d;
      });
      squares[block] = sum_of(end - begin, [=](int64_t i) {
        const auto value = static_cast<double>(b[i]);
        return value * value;
      });
    });
    for (const double part : differences) difference += part;
    for (const double part : squares) square += part;
  });
  const double divisor = square == 0 ? 1 : square;
  error.data<double>()[0] = difference / divisor;
  error.data<double>()[1] = divisor;
}

void relative_error_backward(const Tensor& x, const Tensor& y, const Tensor& error,
                             const Tensor& d_error, Sink d_x) {
  const double factor = 2 * d_error.data<double>()[0] / error.data<double>()[1];
  for_float_type(x.dtype(), "relative_error_backward", [&](auto tag) {
    using T = decltype(tag);
    const T by = static_cast<T>(factor);
    map<T>(
        d_x, [=](T a, T b) { return by * (a - b); }, x, y);
  });
}

}  // namespace regla::cpu
