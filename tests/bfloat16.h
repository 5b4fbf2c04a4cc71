#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tensor.h"
#include "tests/catch.h"

// How close to F32 a computation in BF16 has to be.
namespace regla::test {

/// The root of the mean square of the finite numbers.
inline double rms_of(const Tensor& x) {
  double sum = 0;
  if (!x.defined()) return 0;
  for (const double value : x.values()) sum += std::isfinite(value) ? value * value : 0;
  return std::sqrt(sum / static_cast<double>(std::max<int64_t>(x.numel(), 1)));
}

/// The same of a difference.
inline double rms_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.values(), y = b.values();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(y[i])) sum += (x[i] - y[i]) * (x[i] - y[i]);
  }
  return std::sqrt(sum / static_cast<double>(std::max<int64_t>(a.numel(), 1)));
}

/// How far a tensor is from an exact one: RMS of the difference over RMS, and the largest
/// difference over the largest magnitude. Infinities and NaN stand where they do in `exact`.
struct Distance {
  double rms, furthest;
};

inline Distance distance(const Tensor& rounded, const Tensor& exact) {
  REQUIRE(rounded.defined());
  REQUIRE(rounded.shape() == exact.shape());
  const std::vector<double> a = rounded.values(), b = exact.values();
  double furthest = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(b[i])) {
      REQUIRE((a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))));
      continue;
    }
    furthest = std::max(furthest, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  const auto ratio = [](double x, double y) { return x == 0 ? 0 : x / y; };
  return {ratio(rms_difference(rounded, exact), rms_of(exact)), ratio(furthest, largest)};
}

/// The contract's bound of Distance::furthest.
constexpr double kFurthest = 5e-2;

inline void check_rounded(const Tensor& rounded, const Tensor& exact, double bound) {
  const Distance far = distance(rounded, exact);
  CHECK(far.rms <= bound);
  CHECK(far.furthest <= kFurthest);
}

}  // namespace regla::test
