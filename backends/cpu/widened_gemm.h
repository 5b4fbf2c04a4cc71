#pragma once

#include "backends/cpu/bfloat16_gemm.h"

// Products of BF16 (bfloat16_gemm.h) where the processor has no instructions for them.
namespace regla::cpu {

constexpr int64_t widened_bytes(int64_t N, int64_t K) {
  return N * K * static_cast<int64_t>(sizeof(float));
}
void pack_widened(const PackedB& to, bool transposed, const BFloat16* b, int64_t pitch);
void multiply_widened(const PackedProduct<float>& product);
void multiply_widened(const PackedProduct<BFloat16>& product);

}  // namespace regla::cpu
