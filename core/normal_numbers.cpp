#include "core/normal_numbers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

// Logarithm and cosine by polynomials, in loops without a branch that become vector instructions.
// They differ from those of <cmath> in the last bits of a double, which hardly ever changes the
// float that the product is rounded to; where it might, the number is computed by Random::normal.
namespace regla {
namespace {

constexpr int kTogether = 32;

/// What is far more than these polynomials and <cmath> can differ by, relative to the largest that
/// the number might be: a cosine is as exact as its angle.
constexpr double kDoubt = 0x1p-42;

/// The polynomial with these coefficients, the highest first.
template <class... Coefficients>
inline double polynomial(double z, double first, Coefficients... rest) {
  ((first = first * z + rest), ...);
  return first;
}

/// ln u for a normal u in (0, 1).
inline double log_of(double u) {
  // u = m / 2^d with m in [sqrt(1/2), sqrt(2)). Exponents are shifted to be positive.
  constexpr uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd, kShift = 64;
  const uint64_t bits = std::bit_cast<uint64_t>(u);
  const uint64_t d = kShift - ((bits - kRootOfHalf + (kShift << 52)) >> 52);
  const double m = std::bit_cast<double>(bits + (d << 52));
  const double halvings = std::bit_cast<double>(d | 0x4330000000000000) - 0x1p52;
  // ln m = 2 atanh(s)
  const double s = (m - 1) / (m + 1), z = s * s;
  const double p = polynomial(z, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
                              1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3);
  return 2 * s + 2 * s * z * p - halvings * std::numbers::ln2;
}

/// cos(2 pi v) for v in [0, 1).
inline double cos_of_turns(double v) {
  // Quarters of a turn, and what is left of at most half a quarter.
  constexpr double kRounds = 0x1.8p52;
  const double shifted = 4 * v + kRounds;
  const uint64_t quarter = std::bit_cast<uint64_t>(shifted) & 3;
  const double x = (4 * v - (shifted - kRounds)) * (std::numbers::pi / 2), z = x * x;
  const double c = polynomial(z, 1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                              -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -1.0 / 2, 1.0);
  const double s =
      x * polynomial(z, 1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800,
                     -1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0);
  const double size = (quarter & 1) != 0 ? s : c;
  const uint64_t sign = (quarter + 1) >> 1 << 63;  // of quarters 1 and 2
  return std::bit_cast<double>(std::bit_cast<uint64_t>(size) ^ sign);
}

/// Numbers first to first + kTogether.
void write_some(const Random& random, double deviation, uint64_t first, float* out) {
  uint32_t w[4][kTogether];
  random.draw(first, w);
  double number[kTogether], most[kTogether];
  for (int i = 0; i < kTogether; ++i) {
    // u and v as in Random::normal, where each sum is exact
    const uint64_t fraction = (uint64_t{w[0][i]} << 20) ^ (w[1][i] >> 12);
    most[i] = -2 * log_of(std::bit_cast<double>(fraction | 0x3ff0000000000000) - 1 + 0x1p-53);
  }
  for (int i = 0; i < kTogether; ++i) most[i] = deviation * std::sqrt(most[i]);
  for (int i = 0; i < kTogether; ++i) {
    const double high = std::bit_cast<double>(w[2][i] | 0x4330000000000000) - 0x1p52;
    const double low = std::bit_cast<double>((w[3][i] >> 11) | 0x4330000000000000) - 0x1p52;
    number[i] = most[i] * cos_of_turns(high * 0x1p-32 + low * 0x1p-53);
  }
  int differ = 0;
  for (int i = 0; i < kTogether; ++i) {
    const double doubt = std::abs(most[i]) * kDoubt;
    out[i] = static_cast<float>(number[i] - doubt);
    differ |= out[i] != static_cast<float>(number[i] + doubt) ? 1 : 0;
  }
  if (differ == 0) return;
  for (int i = 0; i < kTogether; ++i) {
    out[i] = static_cast<float>(deviation * random.normal(first + static_cast<uint64_t>(i)));
  }
}

}  // namespace

void write_normal(const Random& random, double deviation, uint64_t first, int64_t count,
                  float* out) {
  int64_t i = 0;
  for (; i + kTogether <= count; i += kTogether) {
    write_some(random, deviation, first + static_cast<uint64_t>(i), out + i);
  }
  float rest[kTogether];
  if (i == count) return;
  write_some(random, deviation, first + static_cast<uint64_t>(i), rest);
  std::copy_n(rest, count - i, out + i);
}

void write_normal(const Random& random, double deviation, uint64_t first, int64_t count,
                  double* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = deviation * random.normal(first + static_cast<uint64_t>(i));
  }
}

}  // namespace regla
