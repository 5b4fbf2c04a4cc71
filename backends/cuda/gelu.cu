#include "backends/cuda/gelu.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"

namespace regla::cuda {
namespace {

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
