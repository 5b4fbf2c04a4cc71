#pragma once

#include <bit>
#include <cstdint>

namespace regla {

/// The float that 16 bits of IEEE 754 (1 of sign, 5 of exponent, 10 of mantissa) stand for, which
/// is exact; infinities and NaN stay what they are. Files have such numbers, tensors never do.
constexpr float widened_float16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31;
  const uint32_t exponent = (uint32_t{bits} >> 10) & 0x1fu, mantissa = uint32_t{bits} & 0x3ffu;
  if (exponent == 0) {  // zero and what is below the normal numbers, in units of 2^-24
    const float size = static_cast<float>(mantissa) * 0x1p-24f;
    return sign == 0 ? size : -size;
  }
  const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

}  // namespace regla
