#include <algorithm>
#include <array>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "core/random.h"

namespace regla::cpu {

void dropout(const DropoutArgs& args, Sink y) {
  for_float_type(args.x.dtype(), "dropout", [&](auto tag) {
    using T = decltype(tag);
    const Random random(args.seed, args.stream);
    const T* x = args.x.data<T>();
    T* out = y.tensor.data<T>();
    const T scale = static_cast<T>(1 / (1 - args.rate));
    const auto threshold = static_cast<uint64_t>(args.rate * 0x1p32);
    parallel_for(args.x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      std::array<uint32_t, 4> words{};
      uint64_t drawn = ~uint64_t{0};
      for (int64_t i = begin; i < end; ++i) {
        // Element n takes word n mod 4 of draw n / 4.
        const auto n = static_cast<uint64_t>(args.first + i);
        if (n / 4 != drawn) words = random.words(drawn = n / 4);
        const T kept = words[n % 4] >= threshold ? scale * x[i] : T(0);
        out[i] = y.accumulate ? out[i] + kept : kept;
      }
    });
  });
}

}  // namespace regla::cpu
