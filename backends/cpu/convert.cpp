#include <type_traits>

#include "backends/cpu/kernels.h"
#include "backends/cpu/narrow.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// Elements per block of what only moves memory: enough that a thread is worth waking.
constexpr int64_t kGrain = int64_t{1} << 18;

template <class From, class To>
void convert_range(const From* from, int64_t count, To* to) {
  if constexpr (std::is_same_v<From, float> && std::is_same_v<To, BFloat16>) {
    narrow(from, count, to);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<To>(from[i]);
  }
}

}  // namespace

void convert(const Tensor& x, Tensor y) {
  for_any_type(x.dtype(), [&](auto from) {
    for_any_type(y.dtype(), [&](auto to) {
      const auto* in = x.data<decltype(from)>();
      auto* out = y.data<decltype(to)>();
      parallel_for(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
        convert_range(in + begin, end - begin, out + begin);
      });
    });
  });
}

}  // namespace regla::cpu
