#pragma once

#include <cstdint>

#include "core/bfloat16.h"

// B [K, N] in the form that processors' instructions for BF16 read, which sum over pairs along K:
// blocks of kPackedRows x kPackedColumns, those of the same columns behind each other, in a block
// [K / 2, N, 2]. What lies beyond B is 0. oneDNN calls it BA16a64b2a, and its own way there took
// three times as long.
namespace regla::cpu {

constexpr int64_t kPackedRows = 32, kPackedColumns = 64;

/// On all threads. With `transposed`, B is stored as [N, K].
void pack_pairs(bool transposed, int64_t N, int64_t K, const BFloat16* b, int64_t pitch,
                BFloat16* out);

}  // namespace regla::cpu
