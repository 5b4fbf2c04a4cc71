#include "backends/adamw.h"
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
  const AdamWSettings settings(args);
  for_each(context(value), value.numel(), [=] __device__(int64_t i) {
    if (settings.factor[0] == 0) return;
    const AdamWNumbers<T> n(settings);
    const T g = n.scale * gradient[i];
    m[i] = n.beta1 * m[i] + (1 - n.beta1) * g;
    v[i] = n.beta2 * v[i] + (1 - n.beta2) * g * g;
    w[i] -= n.rate * (m[i] * n.unbias1 / (sqrt(v[i] * n.unbias2) + n.epsilon) + n.decay * w[i]);
    if (copy != nullptr) copy[i] = static_cast<BFloat16>(w[i]);
  });
}

}  // namespace

void adamw(const AdamWArgs& args) {
  for_float_type(args.value.dtype(), "adamw",
                 [&](auto tag) { adamw_elements<decltype(tag)>(args); });
}

}  // namespace regla::cuda
