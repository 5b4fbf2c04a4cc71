#include <numbers>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
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
  for_float_type(x.dtype(), "gelu", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    Sink out{y};
    if (tanh) {
      write<T>(out, [=](int64_t i) { return T(0.5) * in[i] * (1 + math::tanh(inner(in[i]))); });
    } else {
      write<T>(out, [=](int64_t i) { return in[i] * normal_cdf(in[i]); });
    }
  });
}

void gelu_backward(const Tensor& x, bool tanh, const Tensor& d_y, Sink d_x) {
  for_float_type(x.dtype(), "gelu", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *d_out = d_y.data<T>();
    if (tanh) {
      write<T>(d_x, [=](int64_t i) {
        const T v = in[i], t = math::tanh(inner(v));
        const T d_inner = kTanhScale<T> * (1 + 3 * kTanhCube<T> * v * v);
        return d_out[i] * (T(0.5) * (1 + t) + T(0.5) * v * (1 - t * t) * d_inner);
      });
    } else {
      write<T>(d_x, [=](int64_t i) {
        return d_out[i] * (normal_cdf(in[i]) + in[i] * normal_density(in[i]));
      });
    }
  });
}

}  // namespace regla::cpu
