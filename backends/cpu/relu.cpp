#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

// The elementwise feature maps, written so that NaN fails the condition and stays what it is: relu,
// and elu + 1 (Katharopoulos et al. 2020) written so that it does not cancel for very negative x: x
// > 0 ? x + 1 : e^x.
namespace regla::cpu {

void relu(const Tensor& x, Tensor y) {
  for_sums_of(x, "relu", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{y}, [](T in) { return in <= 0 ? T(0) : in; }, x);
  });
}

// Where y is not above 0 it is 0, or NaN.
void relu_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_sums_of(y, "relu", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        d_x, [](T out, T d) { return out > 0 ? d : out; }, y, d_y);
  });
}

void elu_plus_one(const Tensor& x, Tensor y) {
  for_sums_of(x, "elu_plus_one", [&](auto tag) {
    using T = decltype(tag);
    const auto mapped = [](T in) {
      const T below = math::exp(in > 0 ? T(0) : in);
      return in > 0 ? in + 1 : below;
    };
    map<T>(Sink{y}, mapped, x);
  });
}

// The slope is 1 above 0 and e^x = y below: min(y, 1).
void elu_plus_one_backward(const Tensor& y, const Tensor& d_y, Sink d_x) {
  for_sums_of(y, "elu_plus_one", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        d_x, [](T out, T d) { return d * (out >= 1 ? T(1) : out); }, y, d_y);
  });
}

}  // namespace regla::cpu
