#pragma once

#include <cstdint>
#include <type_traits>

#include "backends/cpu/bfloat16_gemm.h"
#include "core/bfloat16.h"
#include "core/tensor.h"

namespace regla::cpu {

/// What products of T are summed in.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

/// C (+)= op(A) op(B) (+ bias on every row), row-major; op(A) is [M, K], op(B) is [K, N]. Pitches
/// are those of the matrices as stored. B may be stored in another type W, and C is of the type
/// Out.
template <class T, class W = T, class Out = T>
struct Product {
  int64_t M, N, K;
  bool transpose_a = false, transpose_b = false;
  const T* a;
  int64_t a_pitch;
  const W* b;
  int64_t b_pitch;
  const SumOf<T>* bias = nullptr;  // [N]
  Out* c;
  int64_t c_pitch;
  bool accumulate = false;
};

/// Computes a product of any size on all threads. It is cut into pieces that depend on the sizes
/// alone, so the result has the same bits on any number of threads.
void multiply(const Product<float>& product);
void multiply(const Product<double>& product);
/// The same where B is stored in BF16: transposed, beside an A that is not.
void multiply(const Product<float, BFloat16>& product);
/// The same of BF16, summed in F32 and rounded once.
void multiply(const Product<BFloat16, BFloat16, float>& product, BFloat16Way way = bfloat16_way());
void multiply(const Product<BFloat16, BFloat16, BFloat16>& product,
              BFloat16Way way = bfloat16_way());

/// Calls `f` with tags for the type of `a` and of `b` in a product; an Error when `a` is no float.
template <class F>
void for_product_types(const Tensor& a, const Tensor& b, const char* who, F&& f) {
  if (b.dtype() == DType::BF16) return f(float{}, BFloat16{});
  for_float_type(a.dtype(), who, [&](auto tag) { f(tag, tag); });
}

/// A pitch for rows of `size` floats that do not all fall into the same cache sets.
constexpr int64_t padded(int64_t size) { return size + 16; }

}  // namespace regla::cpu
