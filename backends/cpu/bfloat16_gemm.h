#pragma once

#include <cstdint>

#include "core/bfloat16.h"

namespace regla::cpu {

/// How products of BF16 are computed: by the processor's instructions for them, or from operands
/// that are widened first, in F32. Sums are F32 either way.
enum class BFloat16Way { Instructions, Widened };

/// Instructions where this processor has them.
BFloat16Way bfloat16_way();

/// B [K, N], or [N, K] when transposed, of products on one thread, in the form that they read.
struct PackedB {
  BFloat16Way way;
  int64_t N, K;
  void* data;  // of `bytes`, aligned to 64

  /// The room that it takes; a multiple of 64.
  static int64_t bytes(BFloat16Way way, int64_t N, int64_t K);
  /// On all threads.
  void pack(bool transposed, const BFloat16* b, int64_t pitch) const;
};

/// C = op(A) B (+ bias on every row) on one thread, row-major: op(A) is [M, K], C is of float or
/// BF16. With `accumulate` the product is added to C. Fastest where rows follow each other without
/// gaps.
template <class C>
struct PackedProduct {
  int64_t M;
  bool transpose_a;
  const BFloat16* a;
  int64_t a_pitch;
  PackedB b;
  const float* bias;  // [N] or null
  C* c;
  int64_t c_pitch;
  bool accumulate;
  bool c_is_in_cache = false;  ///< else C is formed in memory that is, and then copied
};
void multiply_packed(const PackedProduct<float>& product);
void multiply_packed(const PackedProduct<BFloat16>& product);

}  // namespace regla::cpu
