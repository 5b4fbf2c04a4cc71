#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

// The tanh form: gelu(x) = x/2 (1 + tanh(inner(x))), inner(x) = sqrt(2/pi) (x + 0.044715 x^3)
template <class T>
__device__ T inner(T x) {
  return T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
}

/// The distribution function of the standard normal.
template <class T>
__device__ T normal_cdf(T x) {
  return T(0.5) * (1 + erf(x * T(0.70710678118654752440)));
}

template <class T>
__device__ T normal_density(T x) {
  return exp(T(-0.5) * x * x) * T(0.39894228040143267794);
}

template <class T>
void gelu_elements(const Tensor& x, bool is_tanh, const Tensor& y) {
  const T* in = x.data<T>();
  if (is_tanh) {
    write<T>({y}, [=] __device__(int64_t i) { return T(0.5) * in[i] * (1 + tanh(inner(in[i]))); });
  } else {
    write<T>({y}, [=] __device__(int64_t i) { return in[i] * normal_cdf(in[i]); });
  }
}

template <class T>
void gelu_backward_elements(const Tensor& x, bool is_tanh, const Tensor& d_y, const Sink& d_x) {
  const T *in = x.data<T>(), *d_out = d_y.data<T>();
  if (is_tanh) {
    write<T>(d_x, [=] __device__(int64_t i) {
      const T v = in[i], t = tanh(inner(v));
      const T d_inner = T(0.79788456080286535588) * (1 + 3 * T(0.044715) * v * v);
      return d_out[i] * (T(0.5) * (1 + t) + T(0.5) * v * (1 - t * t) * d_inner);
    });
  } else {
    write<T>(d_x, [=] __device__(int64_t i) {
      return d_out[i] * (normal_cdf(in[i]) + in[i] * normal_density(in[i]));
    });
  }
}

}  // namespace

void gelu(const Tensor& x, bool tanh, Tensor y) {
  for_float_type(x.dtype(), "gelu", [&](auto tag) { gelu_elements<decltype(tag)>(x, tanh, y); });
}

void gelu_backward(const Tensor& x, bool tanh, const Tensor& d_y, Sink d_x) {
  for_float_type(x.dtype(), "gelu",
                 [&](auto tag) { gelu_backward_elements<decltype(tag)>(x, tanh, d_y, d_x); });
}

}  // namespace regla::cuda
