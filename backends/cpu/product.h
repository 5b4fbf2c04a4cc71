#pragma once

#include <cstdint>

namespace regla::cpu {

/// C (+)= op(A) op(B) (+ bias on every row), row-major; op(A) is [M, K], op(B) is [K, N]. Pitches
/// are those of the matrices as stored.
template <class T>
struct Product {
  int64_t M, N, K;
  bool transpose_a = false, transpose_b = false;
  const T* a;
  int64_t a_pitch;
  const T* b;
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

/// A pitch for rows of `size` floats that do not all fall into the same cache sets.
constexpr int64_t padded(int64_t size) { return size + 16; }

}  // namespace regla::cpu
