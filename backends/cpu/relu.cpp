#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// The elementwise feature maps, written so that NaN fails the condition and stays what it is: relu,
// and elu + 1 (Katharopoulos et al. 2020) written so that it does not cancel for very negative x: x
// > 0 ? x + 1 : e^x.
namespace regla::cpu {

void relu(const Tensor& x, Tensor y) {
  for_float_type(x.dtype(), "relu", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    Sink out{y};
    write<T>(out, [=](int64_t i) { return in[i] <= 0 ? T(0) : in[i]; });
  });
}

// Where y is not above 0 it is 0, or NaN.
void relu_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_float_type(y.dtype(), "relu", [&](auto tag) {
    using T = decltype(tag);
    const T *out = y.data<T>(), *d_out = d_y.data<T>();
    write<T>(d_x, [=](int64_t i) { return out[i] > 0 ? d_out[i] : out[i]; });
  });
}

void elu_plus_one(const Tensor& x, Tensor y) {
  for_float_type(x.dtype(), "elu_plus_one", [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    Sink out{y};
    write<T>(out, [=](int64_t i) {
      const T below = math::exp(in[i] > 0 ? T(0) : in[i]);
      return in[i] > 0 ? in[i] + 1 : below;
    });
  });
}

// The slope is 1 above 0 and e^x = y below: min(y, 1).
void elu_plus_one_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_float_type(y.dtype(), "elu_plus_one", [&](auto tag) {
    using T = decltype(tag);
    const T *out = y.data<T>(), *d_out = d_y.data<T>();
    write<T>(d_x, [=](int64_t i) { return d_out[i] * (out[i] >= 1 ? T(1) : out[i]); });
  });
}

}  // namespace regla::cpu
