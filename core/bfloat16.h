#pragma once

#include <bit>
#include <cstdint>

namespace regla {

/// The upper half of a float: its sign and exponent, 7 bits of mantissa. A type to store numbers
/// in; whoever computes widens them first, which is exact.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  /// To the nearest, of two equally near to the even one. Beyond the largest it is infinity; NaN
  /// stays NaN. A double is rounded to float first.
  template <class T>
  explicit constexpr BFloat16(T value) : bits(rounded(static_cast<float>(value))) {}

  constexpr operator float() const {  // NOLINT: widening loses nothing
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }

 private:
  static constexpr uint16_t rounded(float value) {
    const auto all = std::bit_cast<uint32_t>(value);
    // The payload may be all in the lower half: one bit above keeps it a NaN, and a quiet one.
    if (value != value) return static_cast<uint16_t>(all >> 16 | 0x40u);
    // Adds half a unit, less a little where the unit is even; a carry moves on into the exponent.
    return static_cast<uint16_t>((all + 0x7fffu + (all >> 16 & 1u)) >> 16);
  }
};

static_assert(sizeof(BFloat16) == 2);

}  // namespace regla
