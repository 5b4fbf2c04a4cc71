#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"

namespace regla::cuda {
namespace {

// The tanh form: gelu(x) = x/2 (1 + tanh(inner(x))), inner(x) = sqrt(2/pi) (x + 0.044715 x^3)
template <class S>
__device__ S inner(S x) {
  return S(0.79788456080286535588) * (x + S(0.044715) * x * x * x);
}

/// The distribution function of the standard normal.
template <class S>
__device__ S normal_cdf(S x) {
  return S(0.5) * (1 + erf(x * S(0.70710678118654752440)));
}

template <class S>
__device__ S normal_density(S x) {
  return exp(S(-0.5) * x * x) * S(0.39894228040143267794);
}

struct Gelu {
  template <class S>
  __device__ S operator()(S x) const {
    return x * normal_cdf(x);
  }
};

struct TanhGelu {
  template <class S>
  __device__ S operator()(S x) const {
    return S(0.5) * x * (1 + tanh(inner(x)));
  }
};

struct GeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    return d_y * (normal_cdf(x) + x * normal_density(x));
  }
};

struct TanhGeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    const S t = tanh(inner(x));
    const S d_inner = S(0.79788456080286535588) * (1 + 3 * S(0.044715) * x * x);
    return d_y * (S(0.5) * (1 + t) + S(0.5) * x * (1 - t * t) * d_inner);
  }
};

}  // namespace

void gelu(const Tensor& x, bool tanh, Tensor y) {
  for_sum_type(x.dtype(), "gelu", [&](auto tag) {
    using S = decltype(tag);
    tanh ? map<S>(TanhGelu{}, Sink{y}, x) : map<S>(Gelu{}, Sink{y}, x);
  });
}

void gelu_backward(const Tensor& x, bool tanh, const Tensor& d_y, Sink d_x) {
  for_sum_type(x.dtype(), "gelu", [&](auto tag) {
    using S = decltype(tag);
    tanh ? map<S>(TanhGeluBackward{}, d_x, x, d_y) : map<S>(GeluBackward{}, d_x, x, d_y);
  });
}

}  // namespace regla::cuda
