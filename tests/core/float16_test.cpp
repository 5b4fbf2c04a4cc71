#include "core/float16.h"

#include <cmath>

#include "tests/catch.h"

namespace regla {

TEST_CASE("every number of 16 bits is the float it stands for") {
  static_assert(widened_float16(0x3555) == 0x1.554p-2f);
  int64_t wrong = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = widened_float16(static_cast<uint16_t>(bits));
    const int exponent = static_cast<int>(bits >> 10 & 31),
              mantissa = static_cast<int>(bits & 1023);
    bool is_right = std::signbit(value) == (bits >> 15 == 1);
    if (exponent == 31) {
      is_right = is_right && (mantissa == 0 ? std::isinf(value) : std::isnan(value));
    } else {
      const double size =
          exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      is_right = is_right && static_cast<double>(std::abs(value)) == size;
    }
    wrong += is_right ? 0 : 1;
  }
  CHECK(wrong == 0);
}

}  // namespace regla
