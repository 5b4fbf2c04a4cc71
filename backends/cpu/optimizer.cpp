#include <cmath>
#include <type_traits>

#include "backends/adamw.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/narrow.h"

namespace regla::cpu {

void adamw(const AdamWArgs& args) {
  const AdamWSettings settings(args);
  if (settings.factor[0] == 0) return;
  for_float_type(args.value.dtype(), "adamw", [&](auto tag) {
    using T = decltype(tag);
    Tensor value = args.value, first = args.m, second = args.v, rounded = args.copy;
    T *w = value.data<T>(), *m = first.data<T>(), *v = second.data<T>();
    const T* gradient = args.gradient.data<T>();
    BFloat16* copy = rounded ? rounded.data<BFloat16>() : nullptr;
    parallel_for(
        args.value.numel(), kGrain, [&, n = AdamWNumbers<T>(settings)](auto begin, auto end) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) {
            const T g = n.scale * gradient[i];
            m[i] = n.beta1 * m[i] + (1 - n.beta1) * g;
            v[i] = n.beta2 * v[i] + (1 - n.beta2) * g * g;
            w[i] -= n.rate *
                    (m[i] * n.unbias1 / (std::sqrt(v[i] * n.unbias2) + n.epsilon) + n.decay * w[i]);
          }
          if (copy == nullptr) return;
          if constexpr (std::is_same_v<T, float>) {
            narrow(w + begin, end - begin, copy + begin);
          } else {
            for (int64_t i = begin; i < end; ++i) copy[i] = static_cast<BFloat16>(w[i]);
          }
        });
  });
}

}  // namespace regla::cpu
