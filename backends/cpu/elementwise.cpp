#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"

namespace regla::cpu {

void accumulate(const Tensor& x, double scale, Sink out) {
  for_float_type(x.dtype(), "accumulate", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    const T factor = static_cast<T>(scale);
    write<T>(out, [=](int64_t i) { return factor * in[i]; });
  });
}

void add(const Tensor& a, const Tensor& b, Tensor out) {
  for_float_type(a.dtype(), "add", [&](auto tag) {
    using T = decltype(tag);
    const T *left = a.data<T>(), *right = b.data<T>();
    Sink sink{out};
    write<T>(sink, [=](int64_t i) { return left[i] + right[i]; });
  });
}

void column_sums(const Tensor& x, Sink sums) {
  for_float_type(x.dtype(), "column_sums", [&](auto tag) {
    using T = decltype(tag);
    const int64_t N = x.dim(-1), R = N == 0 ? 0 : x.numel() / N;
    const T* in = x.data<T>();
    T* out = sums.tensor.data<T>();
    // A block of columns belongs to one thread and is summed in row order.
    parallel_for(N, 64, [&](int64_t begin, int64_t end) {
      T total[64] = {};
      for (int64_t r = 0; r < R; ++r) {
        const T* row = in + r * N + begin;
        for (int64_t j = 0; j < end - begin; ++j) total[j] += row[j];
      }
      write_range(out + begin, sums.accumulate, 0, end - begin,
                  [&](int64_t j) { return total[j]; });
    });
  });
}

void sum_of_squares(const Tensor& x, double& sum) {
  for_float_type(x.dtype(), "sum_of_squares", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    const int64_t count = x.numel();
    // One partial sum per block, added in order: the same bits on any number of threads.
    std::vector<double> partial(static_cast<size_t>((count + kGrain - 1) / kGrain));
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      double total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t i = begin; i < end; ++i) {
        total += static_cast<double>(in[i]) * static_cast<double>(in[i]);
      }
      partial[static_cast<size_t>(begin / kGrain)] = total;
    });
    sum = 0;
    for (double part : partial) sum += part;
  });
}

void is_finite(const Tensor& x, bool& finite) {
  for_float_type(x.dtype(), "is_finite", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    // x - x is 0 for a number and NaN for infinities and NaN, and NaN survives the sum.
    const int64_t count = x.numel();
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; ++i) total += in[i] - in[i];
    finite = total == 0;
  });
}

}  // namespace regla::cpu
