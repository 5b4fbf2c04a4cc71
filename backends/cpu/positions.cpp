#include <algorithm>

#include "backends/cpu/kernels.h"

namespace regla::cpu {

void positions(const Tensor& start, const Tensor& reset, Tensor positions, Tensor next) {
  const int64_t B = positions.dim(0), steps = positions.dim(1);
  const int32_t* first = start ? start.data<int32_t>() : nullptr;
  const int32_t* resets = reset ? reset.data<int32_t>() : nullptr;
  auto *out = positions.data<int32_t>(), *after = next.data<int32_t>();
  for (int64_t b = 0; b < B; ++b) {
    int32_t position = first ? first[b] : 0;
    for (int64_t t = 0; t < steps; ++t) {
      if (resets && resets[b * steps + t] != 0) position = 0;
      out[b * steps + t] = position++;
    }
    after[b] = position;
  }
}

void first_keys(const Tensor& positions, int64_t past, Tensor first) {
  const int64_t B = positions.dim(0), steps = positions.dim(1);
  const int32_t* position = positions.data<int32_t>();
  auto* out = first.data<int32_t>();
  for (int64_t i = 0; i < B * steps; ++i) {
    out[i] = std::max(0, static_cast<int32_t>(past + i % steps) - position[i]);
  }
}

}  // namespace regla::cpu
