#include <cmath>
#include <type_traits>

#include "backends/adamw.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/narrow.h"

namespace regla::cpu {

namespace {

template <class T>
void update(const AdamWArgs::Weight& weight, const AdamWNumbers<T>& numbers) {
  Tensor value = weight.value, first = weight.m, second = weight.v, rounded = weight.copy;
  T *w = value.data<T>(), *m = first.data<T>(), *v = second.data<T>();
  const T* gradient = weight.gradient.data<T>();
  BFloat16* copy = rounded ? rounded.data<BFloat16>() : nullptr;
  parallel_for(value.numel(), kGrain,
               [&, n = numbers, decay = static_cast<T>(weight.decay)](auto begin, auto end) {
#pragma omp simd
                 for (int64_t i = begin; i < end; ++i) {
                   const T g = n.scale * gradient[i];
                   m[i] = n.beta1 * m[i] + (1 - n.beta1) * g;
                   v[i] = n.beta2 * v[i] + (1 - n.beta2) * g * g;
                   w[i] -= n.rate * (m[i] * n.unbias1 / (std::sqrt(v[i] * n.unbias2) + n.epsilon) +
                                     decay * w[i]);
                 }
                 if (copy == nullptr) return;
                 if constexpr (std::is_same_v<T, float>) {
                   narrow(w + begin, end - begin, copy + begin);
                 } else {
                   for (int64_t i = begin; i < end; ++i) copy[i] = static_cast<BFloat16>(w[i]);
                 }
               });
}

}  // namespace

void adamw(const AdamWArgs& args) {
  const AdamWSettings settings(args);
  if (settings.factor[0] == 0) return;
  for (const AdamWArgs::Weight& weight : args.weights) {
    for_float_type(weight.value.dtype(), "adamw", [&](auto tag) {
      using T = decltype(tag);
      update<T>(weight, AdamWNumbers<T>(settings));
    });
  }
}

}  // namespace regla::cpu
