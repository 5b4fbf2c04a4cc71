#pragma once

#include <cstdint>

#include "core/bfloat16.h"
#include "core/tensor.h"

namespace regla::cpu {

/// C (+)= op(A) op(B) (+ bias on every row), row-major; op(A) is [M, K], op(B) is [K, N]. Pitches
/// are those of the matrices as stored. B may be stored in another type W.
template <class T, class W = T>
struct Product {
  int64_t M, N, K;
  bool transpose_a = false, transpose_b = false;
  const T* a;
  int64_t a_pitch;
  const W* b;
  int64_t b_pitch;
  const T* bias = nullptr;  // [N]
  T* c;
  int64_t c_pitch;
  bool accumulate = false;
};

/// Computes a product of any size on all threads. It is cut into pieces that depend on the sizes
/// alone, so the result has the same bits on any number of threads.
void multiply(const Product<float>& product);
void multiply(const Product<double>& product);
/// The same where B is stored in BF16: transposed, beside an A that is not.
void multiply(const Product<float, BFloat16>& product);

/// Calls `f` with tags for the type of `a` and of `b` in a product; an Error when `a` is no float.
template <class F>
void for_product_types(const Tensor& a, const Tensor& b, const char* who, F&& f) {
  if (b.dtype() == DType::BF16) return f(float{}, BFloat16{});
  for_float_type(a.dtype(), who, [&](auto tag) { f(tag, tag); });
}

/// A pitch for rows of `size` floats that do not all fall into the same cache sets.
constexpr int64_t padded(int64_t size) { return size + 16; }

}  // namespace regla::cpu
