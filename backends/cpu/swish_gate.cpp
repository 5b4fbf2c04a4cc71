#include "backends/cpu/elements.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/vector_math.h"

// GLA's output gate (Yang et al. 2024, section 4.3): y = x swish(z), swish(z) = z sigma(z).
namespace regla::cpu {

void swish_gate(const Tensor& x, const Tensor& z, Tensor y) {
  for_sums_of(x, "swish_gate", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        Sink{y}, [](T in, T gate) { return in * gate * math::sigmoid(gate); }, x, z);
  });
}

// swish'(z) = sigma(z) (1 + z sigma(-z))
void swish_gate_backward(const Tensor& x, const Tensor& z, const Tensor& d_y, Sink d_x, Sink d_z) {
  for_sums_of(x, "swish_gate", [&](auto tag) {
    using T = decltype(tag);
    map<T>(
        d_x, [](T gate, T d) { return d * gate * math::sigmoid(gate); }, z, d_y);
    const auto to_z = [](T in, T gate, T d) {
      const T slope = math::sigmoid(gate) * (1 + gate * math::sigmoid(-gate));
      return d * in * slope;
    };
    map<T>(d_z, to_z, x, z, d_y);
  });
}

}  // namespace regla::cpu
