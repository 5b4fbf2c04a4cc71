#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

/// Elementary functions that compilers vectorise: straight-line polynomials in float, good to about
/// 2e-7 relative unless said otherwise. The double versions are the standard library's. Inlining is
/// forced because a call left in a loop stops its vectorisation.
///
/// NaN stays NaN in all of them, and in every kernel: where one chooses by a comparison, NaN, for
/// which all are false, must fall on the side that keeps it.
namespace regla::cpu::math {

/// e^x where x is known to be at most 88.8, as after the subtraction of a maximum. Below -86.9 the
/// result is 0, never a denormal; NaN stays NaN.
[[gnu::always_inline]] inline float exp_of_low(float x) {
  // x = n ln 2 + r; adding 1.5 * 2^23 rounds to an integer that sits in the low mantissa bits.
  const float shifted = x * std::numbers::log2e_v<float> + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n as two factors, so that n = 128 does not overflow before it must.
  const uint32_t half = (std::bit_cast<uint32_t>(shifted) << 23) + 0x3f000000u;
  const float result = p * std::bit_cast<float>(half) * 2.0f;
  // Choosing last is cheaper than clamping first, for which compilers make both branches.
  return x < -86.9f ? 0.0f : result;
}
inline double exp_of_low(double x) { return std::exp(x); }

/// e^x, the same below 88.8; infinity above.
[[gnu::always_inline]] inline float exp(float x) {
  const float low = exp_of_low(x);
  return x > 88.8f ? std::numeric_limits<float>::infinity() : low;
}
inline double exp(double x) { return std::exp(x); }

/// e^x - 1, exact to rounding near 0.
[[gnu::always_inline]] inline float expm1(float x) {
  // Within 1/2 of 0 the series; further out the subtraction loses at most one digit.
  float p = 1.0f / 5040;
  p = p * x + 1.0f / 720;
  p = p * x + 1.0f / 120;
  p = p * x + 1.0f / 24;
  p = p * x + 1.0f / 6;
  p = p * x + 0.5f;
  p = p * x + 1.0f;
  const float near = p * x, far = exp(x) - 1;
  return x > -0.5f && x < 0.5f ? near : far;
}
inline double expm1(double x) { return std::expm1(x); }

/// ln x for normal x > 0, and nonsense for infinity and NaN.
[[gnu::always_inline]] inline float log_of_normal(float x) {
  // x = 2^n m with m in [sqrt(1/2), sqrt(2)), and ln m = 2 atanh((m - 1) / (m + 1)).
  const uint32_t bits = std::bit_cast<uint32_t>(x) - 0x3f3504f3u;
  const float n = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float m = std::bit_cast<float>((bits & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1) / (m + 1), s2 = s * s;
  float p = 2.0f / 11;
  p = p * s2 + 2.0f / 9;
  p = p * s2 + 2.0f / 7;
  p = p * s2 + 2.0f / 5;
  p = p * s2 + 2.0f / 3;
  return n * std::numbers::ln2_v<float> + (p * s2 * s + 2 * s);
}

/// ln x for normal x > 0; infinity and NaN stay what they are.
[[gnu::always_inline]] inline float log(float x) {
  return x < std::numeric_limits<float>::infinity() ? log_of_normal(x) : x;
}
inline double log(double x) { return std::log(x); }

/// ln(1 + x) for x > -1, exact to rounding near 0.
[[gnu::always_inline]] inline float log1p(float x) {
  const float u = 1 + x;
  return log_of_normal(u) + (x - (u - 1)) / u;  // NaN comes through the second term
}
inline double log1p(double x) { return std::log1p(x); }

template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  // e^-|x| never overflows, and 1 - sigmoid(x) = sigmoid(-x) keeps its digits.
  const T e = exp(x < 0 ? x : -x);
  return (x < 0 ? e : T(1)) / (1 + e);
}

/// ln sigmoid(x) = min(x, 0) - ln(1 + e^-|x|)
template <class T>
[[gnu::always_inline]] inline T log_sigmoid(T x) {
  return (x < 0 ? x : T(0)) - log1p(exp(x < 0 ? x : -x));
}

/// sin x and cos x to 2e-7 absolute for |x| up to a few thousand.
[[gnu::always_inline]] inline void sin_cos(float x, float& sine, float& cosine) {
  // x = n pi/2 + r; adding 1.5 * 2^23 rounds to an integer that sits in the low mantissa bits.
  constexpr float kQuadrants = 2 * std::numbers::inv_pi_v<float>;
  const float shifted = x * kQuadrants + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.549789948768648e-8f;
  const float r2 = r * r;
  // sin r = r + r^3 P(r^2) and cos r = 1 - r^2/2 + r^4 Q(r^2), fitted on [-pi/4, pi/4].
  float s = -1.9508741388563067e-4f;
  s = s * r2 + 8.332112804055214e-3f;
  s = s * r2 - 1.6666653752326965e-1f;
  s = s * r2 * r + r;
  float c = 2.4425680749118328e-5f;
  c = c * r2 - 1.3887251261621714e-3f;
  c = c * r2 + 4.166664555668831e-2f;
  c = c * r2 * r2 - 0.5f * r2 + 1;
  const uint32_t quadrant = std::bit_cast<uint32_t>(shifted);
  const bool swaps = (quadrant & 1) != 0;
  const float a = swaps ? c : s, b = swaps ? s : c;
  sine = std::bit_cast<float>(std::bit_cast<uint32_t>(a) ^ ((quadrant & 2) << 30));
  cosine = std::bit_cast<float>(std::bit_cast<uint32_t>(b) ^ (((quadrant + 1) & 2) << 30));
}
inline void sin_cos(double x, double& sine, double& cosine) {
  sine = std::sin(x);
  cosine = std::cos(x);
}

/// tanh to 1e-7 absolute.
[[gnu::always_inline]] inline float tanh(float x) {
  const float e = exp(-2 * (x < 0 ? -x : x));
  const float magnitude = (1 - e) / (1 + e);
  return x < 0 ? -magnitude : magnitude;
}
inline double tanh(double x) { return std::tanh(x); }

/// erf to 5e-7 relative: x times a ratio of two polynomials in x^2, fitted on [-4, 4] for the least
/// largest relative error; beyond 3.92 it is 1 to rounding.
[[gnu::always_inline]] inline float erf(float x) {
  const float a = x < -4 ? -4.0f : (x > 4 ? 4.0f : x), s = a * a;
  float p = 1.98679322e-06f;
  p = p * s + 2.84565322e-04f;
  p = p * s + 3.88330454e-03f;
  p = p * s + 5.31016216e-02f;
  p = p * s + 1.93544105e-01f;
  p = p * s + 1.12837911f;
  float q = 3.74202573e-05f;
  q = q * s + 1.18556229e-03f;
  q = q * s + 1.52071714e-02f;
  q = q * s + 1.15349606e-01f;
  q = q * s + 5.04856527e-01f;
  q = q * s + 1.0f;
  return x > 3.92f ? 1.0f : (x < -3.92f ? -1.0f : a * p / q);
}
inline double erf(double x) { return std::erf(x); }

/// y = e^(x - shift) of `count` elements, y may be x; gives their sum.
template <class T>
T exponentials(const T* x, T shift, int64_t count, T* y) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    y[i] = exp(x[i] - shift);
    sum += y[i];
  }
  return sum;
}

}  // namespace regla::cpu::math
