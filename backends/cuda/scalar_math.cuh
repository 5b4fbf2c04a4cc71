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

/// 1 / x: in float for |x| < 2^126, with a relative error of 1e-7.
static __device__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
static __device__ double reciprocal(double x) { return 1 / x; }

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

}  // namespace regla::cuda
