#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/scalar_math.cuh"

namespace regla::cuda {
namespace {

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
    const S e = exp_of(S(-0.5) * x * x);
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
    return x * reciprocal(1 + exp_of(-2 * inner(x)));
  }
};

struct GeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    const Normal<S> normal(x);
    return d_y * (normal.below + x * normal.density);
  }
};

struct TanhGeluBackward {
  template <class S>
  __device__ S operator()(S x, S d_y) const {
    const S s = reciprocal(1 + exp_of(-2 * inner(x)));
    const S d_inner = S(0.79788456080286535588) * (1 + 3 * S(0.044715) * x * x);
    return d_y * (s + 2 * x * s * (1 - s) * d_inner);
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
