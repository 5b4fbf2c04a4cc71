#pragma once

// Elementary functions beyond those that CUDA has, and in float those that it has slowly. NaN stays
// NaN.
namespace regla::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// 2^x by the special function unit, 0 where that is not a normal number.
static __device__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// e^x: in float with a relative error of 2e-7 + |x| 6e-8, and 0 where it is not a normal number.
static __device__ float exp_of(float x) { return fast_exp2(x * kLog2E); }
static __device__ double exp_of(double x) { return exp(x); }

/// 1 / x: in float for |x| < 2^126, with a relative error of 1e-7.
static __device__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
static __device__ double reciprocal(double x) { return 1 / x; }

/// ln x: in float with an error of 3e-7, relative or within 1/2 of x = 1 absolute.
static __device__ float log_of(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y * kLn2;
}

/// ln(1 - n / d) for d > 0 and n < d, exact to rounding near 0.
static __device__ float log_without(float n, float d) {
  // Near 0, with s = -n / (2 d - n): ln(1 - n / d) = 2 atanh(s).
  const bool is_near = fabsf(n) < 0.25f * d;
  const float r = reciprocal(is_near ? 2 * d - n : d), s = -n * r, s2 = s * s;
  float p = 2.0f / 9;
  p = p * s2 + 2.0f / 7;
  p = p * s2 + 2.0f / 5;
  p = p * s2 + 2.0f / 3;
  return is_near ? p * s2 * s + 2 * s : log_of((d - n) * r);
}
static __device__ double log_without(double n, double d) { return log1p(-n / d); }

/// The distribution function of the standard normal, to 8e-8; `e` = e^(-x^2 / 2).
static __device__ float normal_cdf(float x, float e) {
  // erfc(a) = e^(-a^2) t (a_1 + t (a_2 + ...)), t = 1 / (1 + 0.3275911 a), with a = |x| / sqrt(2)
  // (Abramowitz and Stegun 1964, 7.1.26)
  const float t = reciprocal(1 + 0.23164190f * fabsf(x));
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float beyond = 0.5f * e * p * t;
  return x < 0 ? beyond : 1 - beyond;
}
static __device__ double normal_cdf(double x, double) {
  return 0.5 * (1 + erf(x * 0.70710678118654752440));
}

/// The larger of both, NaN if one is.
static __device__ float larger_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}
static __device__ double larger_or_nan(double a, double b) { return a > b || a != a ? a : b; }

template <class S>
__device__ S sigmoid_of(S x) {
  // e^-|x| never overflows, and 1 - sigmoid(x) = sigmoid(-x) keeps its digits.
  const S e = exp_of(x < 0 ? x : -x);
  return (x < 0 ? e : S(1)) * reciprocal(1 + e);
}

}  // namespace regla::cuda
