#include "backends/cpu/kernels.h"
#include "core/bfloat16.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// Elements per block of what only moves memory: enough that a thread is worth waking.
constexpr int64_t kGrain = int64_t{1} << 18;

}  // namespace

void convert(const Tensor& x, Tensor y) {
  for_any_type(x.dtype(), [&](auto from) {
    for_any_type(y.dtype(), [&](auto to) {
      const auto* in = x.data<decltype(from)>();
      auto* out = y.data<decltype(to)>();
      parallel_for(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = static_cast<decltype(to)>(in[i]);
      });
    });
  });
}

}  // namespace regla::cpu
