#pragma once

#include "backends/cuda/precise_math.cuh"

// GELU of one number, in both of its forms.
namespace regla::cuda {

// The tanh form: gelu(x) = x/2 (1 + tanh(inner(x))) = x sigma(2 inner(x)),
// inner(x) = sqrt(2/pi) (x + 0.044715 x^3)
template <class S>
__device__ S inner(S x) {
  return S(0.79788456080286535588) * (x + S(0.044715) * x * x * x);
}

/// The standard normal's distribution function and density at x.
template <class S>
struct Normal {
  S below, density;

  __device__ explicit Normal(S x) {
    const S e = precise_exp(S(-0.5) * x * x);
    density = e * S(0.39894228040143267794);
    below = normal_cdf(x, e);
  }
};

struct Gelu {
  template <class S>
  __device__ S operator()(S x) const {
    return x * Normal<S>(x).below;
  }
};

struct TanhGelu {
  template <class S>
  __device__ S operator()(S x) const {
    return x * reciprocal(1 + precise_exp(-2 * inner(x)));
  }
};

}  // namespace regla::cuda
