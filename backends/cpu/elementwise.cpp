#include <algorithm>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"

namespace regla::cpu {

void accumulate(const Tensor& x, double scale, Sink out) {
  for_sums_of(x, "accumulate", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        out, [factor = static_cast<T>(scale)](T v) { return factor * v; }, x);
  });
}

void add(const Tensor& a, const Tensor& b, Tensor out) {
  for_sums_of(a, "add", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{out}, [](T left, T right) { return left + right; }, a, b);
  });
}

void scale_by(const Tensor& x, const Tensor& factor, Sink out) {
  for_sums_of(x, "scale_by", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        out, [by = static_cast<T>(factor.data<double>()[0])](T v) { return by * v; }, x);
  });
}

void sum(const Tensor& x, double scale, Tensor total) {
  for_float_type(x.dtype(), "sum", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    double in_order = 0;
    for (int64_t i = 0; i < x.numel(); ++i) in_order += static_cast<double>(in[i]);
    total.data<double>()[0] = in_order * scale;
  });
}

void column_sums(const Tensor& x, Sink sums) {
  for_sums_of(x, "column_sums", [&](auto tag) {
    using T = decltype(tag);
    // Blocks of rows are summed by themselves, in the order they lie in memory, then added in
    // order.
    constexpr int64_t kRows = 256;
    const int64_t N = x.dim(-1), R = N == 0 ? 0 : x.numel() / N, blocks = (R + kRows - 1) / kRows;
    Tensor partial = Tensor::zeros({std::max<int64_t>(blocks, 1), N}, dtype_of<T>);
    const Input<T> in(x);
    T *totals = partial.data<T>(), *out = sums.tensor.data<T>();
    parallel_for(R, kRows, [&](int64_t begin, int64_t end) {
      T* total = totals + begin / kRows * N;
      std::vector<T> room = in.room(N);
      for (int64_t r = begin; r < end; ++r) {
        const T* row = in.read(r * N, N, room);
        for (int64_t j = 0; j < N; ++j) total[j] += row[j];
      }
    });
    for (int64_t block = 1; block < blocks; ++block) {
      for (int64_t j = 0; j < N; ++j) totals[j] += totals[block * N + j];
    }
    write_range(out, sums.accumulate, 0, N, [=](int64_t j) { return totals[j]; });
  });
}

namespace {

/// W: the type that x is stored in.
template <class T, class W>
bool holds_numbers(const Tensor& x) {
  // x - x is 0 for a number and NaN for infinities and NaN, and NaN survives the sum.
  const W* in = x.data<W>();
  return sum_of(x.numel(), [=](int64_t i) { return T(in[i]) - T(in[i]); }) == 0;
}

}  // namespace

void is_finite(const Tensor& x, Tensor finite) {
  int32_t& answer = finite.data<int32_t>()[0];
  if (x.dtype() == DType::BF16) {
    answer = holds_numbers<float, BFloat16>(x);
    return;
  }
  for_float_type(x.dtype(), "is_finite",
                 [&](auto tag) { answer = holds_numbers<decltype(tag), decltype(tag)>(x); });
}

}  // namespace regla::cpu
