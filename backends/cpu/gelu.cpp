#include <numbers>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

namespace regla::cpu {
namespace {

// The tanh form: gelu(x) = x/2 (1 + tanh(inner(x))), inner(x) = sqrt(2/pi) (x + 0.044715 x^3)
template <class T>
constexpr T kTanhScale = T(0.79788456080286535588);
template <class T>
constexpr T kTanhCube = T(0.044715);

/// The distribution function of the standard normal.
template <class T>
[[gnu::always_inline]] inline T normal_cdf(T x) {
  return T(0.5) * (1 + math::erf(x * (std::numbers::sqrt2_v<T> / 2)));
}

template <class T>
[[gnu::always_inline]] inline T normal_density(T x) {
  return math::exp(T(-0.5) * x * x) * T(0.39894228040143267794);
}

template <class T>
[[gnu::always_inline]] inline T inner(T x) {
  return kTanhScale<T> * (x + kTanhCube<T> * x * x * x);
}

}  // namespace

void gelu(const Tensor& x, bool tanh, Tensor y) {
  for_sums_of(x, "gelu", [&](auto tag) {
    using T = decltype(tag);
    if (tanh) {
      map<T>(
          Sink{y}, [](T v) { return T(0.5) * v * (1 + math::tanh(inner(v))); }, x);
    } else {
      map<T>(
          Sink{y}, [](T v) { return v * normal_cdf(v); }, x);
    }
  });
}

void gelu_backward(const Tensor& x, bool tanh, const Tensor& d_y, const LinearSink& to) {
  const Sink& d_x = to.rows.matrix;
  for_sums_of(x, "gelu", [&](auto tag) {
    using T = decltype(tag);
    if (tanh) {
      const auto slope = [](T v, T d) {
        const T t = math::tanh(inner(v));
        const T d_inner = kTanhScale<T> * (1 + 3 * kTanhCube<T> * v * v);
        return d * (T(0.5) * (1 + t) + T(0.5) * v * (1 - t * t) * d_inner);
      };
      map<T>(d_x, slope, x, d_y);
    } else {
      map<T>(
          d_x, [](T v, T d) { return d * (normal_cdf(v) + v * normal_density(v)); }, x, d_y);
    }
  });
  if (to.sums) column_sums(d_x.tensor, to.sums);
}

}  // namespace regla::cpu
