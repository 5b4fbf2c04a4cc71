#pragma once

#include "backends/cuda/scalar_math.cuh"

// Elementary functions that in float are exact to their last place or two. NaN stays NaN.
namespace regla::cuda {

static __device__ float precise_exp(float x) { return expf(x); }
static __device__ double precise_exp(double x) { return exp(x); }

/// Digits that results need: all that F32 has, or those that are left of x in BF16, for |x| < 100
/// with a relative error of 1e-5.
enum class Digits { All, Few };
template <Digits kDigits, class S>
__device__ S exp_to(S x) {
  if constexpr (kDigits == Digits::Few) return fast_exp2(kLog2E * x);
  return precise_exp(x);
}

/// ln(1 - n / d) for d > 0 and n < d, exact to rounding near 0.
template <Digits kDigits = Digits::All>
__device__ float precise_log_without(float n, float d) {
  // Near 0, with s = -n / (2 d - n): ln(1 - n / d) = 2 atanh(s).
  const bool is_near = fabsf(n) < 0.25f * d;
  const float r = reciprocal(is_near ? 2 * d - n : d), s = -n * r, s2 = s * s;
  float p = 2.0f / 9;
  p = p * s2 + 2.0f / 7;
  p = p * s2 + 2.0f / 5;
  p = p * s2 + 2.0f / 3;
  const float rest = (d - n) * r;
  return is_near ? p * s2 * s + 2 * s : kDigits == Digits::Few ? __logf(rest) : logf(rest);
}
template <Digits = Digits::All>
__device__ double precise_log_without(double n, double d) {
  return log1p(-n / d);
}

template <class S>
__device__ S precise_sigmoid(S x) {
  // e^-|x| never overflows, and 1 - sigmoid(x) = sigmoid(-x) keeps its digits.
  const S e = precise_exp(x < 0 ? x : -x);
  return (x < 0 ? e : S(1)) * reciprocal(1 + e);
}

}  // namespace regla::cuda
