#include "backends/cuda/kernels.h"
#include "backends/cuda/loops.cuh"

namespace regla::cuda {
namespace {

template <class T>
void adamw_elements(const AdamWArgs& args) {
  Tensor value = args.value, first = args.m, second = args.v, rounded = args.copy;
  T *w = value.data<T>(), *m = first.data<T>(), *v = second.data<T>();
  const T* gradient = args.gradient.data<T>();
  BFloat16* copy = rounded ? rounded.data<BFloat16>() : nullptr;
  const T scale = static_cast<T>(args.gradient_scale);
  const T beta1 = static_cast<T>(args.beta1), beta2 = static_cast<T>(args.beta2);
  const T epsilon = static_cast<T>(args.epsilon), rate = static_cast<T>(args.rate);
  const T decay = static_cast<T>(args.decay);
  const T unbias1 = static_cast<T>(1 / args.correction1);
  const T unbias2 = static_cast<T>(1 / args.correction2);
  for_each(context(value), value.numel(), [=] __device__(int64_t i) {
    const T g = scale * gradient[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    w[i] -= rate * (m[i] * unbias1 / (sqrt(v[i] * unbias2) + epsilon) + decay * w[i]);
    if (copy != nullptr) copy[i] = BFloat16(w[i]);
  });
}

}  // namespace

void adamw(const AdamWArgs& args) {
  for_float_type(args.value.dtype(), "adamw",
                 [&](auto tag) { adamw_elements<decltype(tag)>(args); });
}

}  // namespace regla::cuda
