#include "backends/cuda/kernels.h"
#include "backends/cuda/map.cuh"

// The elementwise feature maps, written so that NaN fails the condition and stays what it is: relu,
// and elu + 1 (Katharopoulos et al. 2020) written so that it does not cancel for very negative x: x
// > 0 ? x + 1 : e^x.
namespace regla::cuda {
namespace {

struct Relu {
  template <class S>
  __device__ S operator()(S x) const {
    return x <= 0 ? S(0) : x;
  }
};

// Where y is not above 0 it is 0, or NaN.
struct ReluBackward {
  template <class S>
  __device__ S operator()(S y, S d_y) const {
    return y > 0 ? d_y : y;
  }
};

struct EluPlusOne {
  template <class S>
  __device__ S operator()(S x) const {
    return x > 0 ? x + 1 : exp(x);
  }
};

// The slope is 1 above 0 and e^x = y below: min(y, 1).
struct EluPlusOneBackward {
  template <class S>
  __device__ S operator()(S y, S d_y) const {
    return d_y * (y >= 1 ? S(1) : y);
  }
};

}  // namespace

void relu(const Tensor& x, Tensor y) {
  for_sum_type(x.dtype(), "relu", [&](auto tag) { map<decltype(tag)>(Relu{}, Sink{y}, x); });
}

void relu_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_sum_type(y.dtype(), "relu",
               [&](auto tag) { map<decltype(tag)>(ReluBackward{}, d_x, y, d_y); });
}

void elu_plus_one(const Tensor& x, Tensor y) {
  for_sum_type(x.dtype(), "elu_plus_one",
               [&](auto tag) { map<decltype(tag)>(EluPlusOne{}, Sink{y}, x); });
}

void elu_plus_one_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_sum_type(y.dtype(), "elu_plus_one",
               [&](auto tag) { map<decltype(tag)>(EluPlusOneBackward{}, d_x, y, d_y); });
}

}  // namespace regla::cuda
