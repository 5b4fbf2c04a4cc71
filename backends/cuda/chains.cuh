#pragma once

#include <cstdint>

// Long sums in several chains.
namespace regla::cuda {

/// Several chains of additions in place of one, whose rounding would add up: terms take turns.
template <class S>
struct Chains {
  static constexpr int kCount = 8;
  S at[kCount] = {};

  __device__ S total() const {
    S pairs[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) pairs[i] = at[2 * i] + at[2 * i + 1];
    return (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
  }
};

/// The scalar product of two rows, in an order that is the same wherever they lie.
template <class S, class A, class B>
__device__ S dot_of(const A& a, const B& b, int64_t size) {
  Chains<S> sum;
  int64_t i = 0;
  for (; i + sum.kCount <= size; i += sum.kCount) {
#pragma unroll
    for (int e = 0; e < sum.kCount; ++e) sum.at[e] += a[i + e] * b[i + e];
  }
  for (; i < size; ++i) sum.at[0] += a[i] * b[i];
  return sum.total();
}

}  // namespace regla::cuda
