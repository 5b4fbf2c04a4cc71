#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "backends/copies.h"
#include "core/parallel.h"
#include "core/random.h"
#include "core/tensor.h"
#include "tests/error_of.h"

// What the tests of the engine share.
namespace regla::test {

/// Normal numbers times `deviation`, the same in every type up to its rounding: a double is the
/// float's value exactly.
inline Tensor normal_tensor(const Shape& shape, DType dtype, uint64_t seed, double deviation = 1) {
  const Random random(seed, 77);
  Tensor values = Tensor::empty(shape, DType::F32);
  for (int64_t i = 0; i < values.numel(); ++i) {
    values.data<float>()[i] =
        static_cast<float>(deviation * random.normal(static_cast<uint64_t>(i)));
  }
  return converted(values, dtype);
}

/// Distinct numbers, evenly spaced in (low, high) and shuffled, so that no two are close to a tie.
inline Tensor spaced_tensor(const Shape& shape, DType dtype, uint64_t seed, double low,
                            double high) {
  const Random random(seed, 78);
  Tensor values = Tensor::empty(shape, DType::F32);
  const int64_t count = values.numel();
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) {
    const double u = random.uniform(static_cast<uint64_t>(i));
    std::swap(order[static_cast<size_t>(i)],
              order[static_cast<size_t>(u * static_cast<double>(i + 1))]);
  }
  for (int64_t i = 0; i < count; ++i) {
    const double place = (static_cast<double>(order[static_cast<size_t>(i)]) + 0.5) /
                         static_cast<double>(std::max<int64_t>(count, 1));
    values.data<float>()[i] = static_cast<float>(low + (high - low) * place);
  }
  return converted(values, dtype);
}

/// Integers in [0, bound).
inline Tensor random_ids(const Shape& shape, uint64_t seed, int64_t bound) {
  const Random random(seed, 79);
  Tensor ids = Tensor::empty(shape, DType::I32);
  for (int64_t i = 0; i < ids.numel(); ++i) {
    const double u = random.uniform(static_cast<uint64_t>(i));
    ids.data<int32_t>()[i] = static_cast<int32_t>(u * static_cast<double>(bound));
  }
  return ids;
}

/// 1 with the given probability.
inline Tensor random_mask(const Shape& shape, uint64_t seed, double probability) {
  const Random random(seed, 80);
  Tensor mask = Tensor::empty(shape, DType::I32);
  for (int64_t i = 0; i < mask.numel(); ++i) {
    mask.data<int32_t>()[i] = random.uniform(static_cast<uint64_t>(i)) < probability ? 1 : 0;
  }
  return mask;
}

/// max|a - b| / max(max|b|, least): the measure of every comparison. NaN and infinities are
/// infinitely wrong.
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b,
                             double least = 0) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, size = least;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
      if (a[i] == b[i]) continue;
      return INFINITY;
    }
    difference = std::max(difference, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return difference == 0 ? 0 : difference / size;
}

/// Whether numbers up to `size`, one of several results of a computation in `sums` with numbers up
/// to `terms`, are zero by mathematics: what rounding leaves of terms that cancel.
inline bool is_left_over(double size, double terms, DType sums) {
  return size <= 32 * (sums == DType::F64 ? 0x1p-52 : 0x1p-23) * terms;
}

/// The largest finite number.
inline double largest_of(const Tensor& x) {
  double largest = 0;
  if (!x.defined()) return largest;
  for (const double value : x.values()) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  return largest;
}
inline double largest_of(const Tensors& tensors) {
  double largest = 0;
  for (const Tensor& x : tensors) largest = std::max(largest, largest_of(x));
  return largest;
}

inline double relative_error(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined() ? 0 : INFINITY;
  return a.shape() == b.shape() ? relative_error(a.values(), b.values()) : INFINITY;
}

/// The same for result b of a computation whose largest number is `terms`: what is left of terms
/// that cancel differs from machine to machine as a whole, and is measured against them.
inline double relative_error(const Tensor& a, const Tensor& b, double terms) {
  if (!a.defined() || !b.defined() || a.shape() != b.shape()) return relative_error(a, b);
  const bool is_zero = is_left_over(largest_of(b), terms, sum_type(b.dtype()));
  return relative_error(a.values(), b.values(), is_zero ? terms : 0);
}

/// Whichever devices they lie on.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const Tensor x = a.on(Device{}), y = b.on(Device{});
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.raw(), y.raw(), static_cast<size_t>(x.bytes())) == 0;
}

inline bool all_finite(const Tensor& x) {
  const std::vector<double> values = x.values();
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

/// sum(a * b)
inline double dot(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.values(), y = b.values();
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

/// Another number of threads for the length of a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

/// d f / d x[i] by a five-point difference (error of order step^4); `x` is changed in place and put
/// back.
template <class F>
double slope(Tensor& x, int64_t i, F&& f, double step = 1e-3) {
  double& place = x.data<double>()[i];
  const double center = place;
  const auto at = [&](double offset) {
    place = center + offset;
    return f();
  };
  const double near = at(step) - at(-step), far = at(2 * step) - at(-2 * step);
  place = center;
  return (8 * near - far) / (12 * step);
}

}  // namespace regla::test
