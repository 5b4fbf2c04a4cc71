#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"
#include "backends/cuda/precise_math.cuh"

// GLA's output gate (Yang et al. 2024, section 4.3): y = x swish(z), swish(z) = z sigma(z).
namespace regla::cuda {
namespace {

struct SwishGate {
  template <class S>
  __device__ S operator()(S x, S z) const {
    return x * z * precise_sigmoid(z);
  }
};

// swish'(z) = sigma(z) (1 + z sigma(-z))
struct SwishGateBackward {
  template <class S>
  __device__ Pair<S> operator()(S x, S z, S d_y) const {
    const S s = precise_sigmoid(z);
    return {d_y * z * s, d_y * x * (s * (1 + z * precise_sigmoid(-z)))};
  }
};

}  // namespace

void swish_gate(const Tensor& x, const Tensor& z, Tensor y) {
  for_sum_type(x.dtype(), "swish_gate",
               [&](auto tag) { map<decltype(tag)>(SwishGate{}, Sink{y}, x, z); });
}

void swish_gate_backward(const Tensor& x, const Tensor& z, const Tensor& d_y, Sink d_x, Sink d_z) {
  for_sum_type(x.dtype(), "swish_gate", [&](auto tag) {
    map_pair<decltype(tag)>(SwishGateBackward{}, d_x, d_z, x, z, d_y);
  });
}

}  // namespace regla::cuda
