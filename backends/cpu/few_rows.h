#pragma once

#include "backends/cpu/product.h"

namespace regla::cpu {

/// Decoding multiplies a row with each weight [N, K] and is as slow as reading the weights. From
/// two rows on the library, which packs B as it reads it, measured no slower; but it cannot read
/// BF16.
template <class W>
constexpr int64_t kFewRows = 1;
template <>
inline constexpr int64_t kFewRows<BFloat16> = 8;

template <class T, class W, class Out>
bool has_few_rows(const Product<T, W, Out>& p) {
  return p.transpose_b && !p.transpose_a && p.M <= kFewRows<W>;
}

/// Products with few rows: B is read once, on all threads, and nothing of it is copied. The result
/// has the same bits on any number of threads, and a row the same whatever rows are beside it.
void multiply_few_rows(const Product<float>& product);
void multiply_few_rows(const Product<double>& product);
void multiply_few_rows(const Product<float, BFloat16>& product);

}  // namespace regla::cpu
