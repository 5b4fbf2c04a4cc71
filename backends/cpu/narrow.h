#pragma once

#include <cstdint>

#include "core/bfloat16.h"

namespace regla::cpu {

/// to[i] = from[i], which loses nothing.
inline void widen(const BFloat16* from, int64_t count, float* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

/// to[i] = from[i], rounded. The member is assigned: compilers make no vectors of copies of a
/// class.
inline void narrow(const float* from, int64_t count, BFloat16* to) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i].bits = BFloat16(from[i]).bits;
}

}  // namespace regla::cpu
