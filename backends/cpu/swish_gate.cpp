#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/vector_math.h"

// GLA's output gate (Yang et al. 2024, section 4.3): y = x swish(z), swish(z) = z sigma(z).
namespace regla::cpu {

void swish_gate(const Tensor& x, const Tensor& z, Tensor y) {
  for_float_type(x.dtype(), "swish_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *gate = z.data<T>();
    Sink out{y};
    write<T>(out, [=](int64_t i) { return in[i] * gate[i] * math::sigmoid(gate[i]); });
  });
}

// swish'(z) = sigma(z) (1 + z sigma(-z))
void swish_gate_backward(const Tensor& x, const Tensor& z, const Tensor& d_y, Sink d_x, Sink d_z) {
  for_float_type(x.dtype(), "swish_gate", [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *gate = z.data<T>(), *d_out = d_y.data<T>();
    write<T>(d_x, [=](int64_t i) { return d_out[i] * gate[i] * math::sigmoid(gate[i]); });
    write<T>(d_z, [=](int64_t i) {
      const T slope = math::sigmoid(gate[i]) * (1 + gate[i] * math::sigmoid(-gate[i]));
      return d_out[i] * in[i] * slope;
    });
  });
}

}  // namespace regla::cpu
