#include "core/bfloat16.h"

#include <bit>
#include <cmath>
#include <limits>

#include "backends/copies.h"
#include "core/random.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
uint16_t stored(uint32_t bits) { return BFloat16(float_of(bits)).bits; }

}  // namespace

TEST_CASE("a BF16 is the nearest one, of two the even one") {
  CHECK(stored(0x3f800000) == 0x3f80);
  CHECK(stored(0x3f807fff) == 0x3f80);
  CHECK(stored(0x3f808000) == 0x3f80);  // halfway to 0x3f81, which is odd
  CHECK(stored(0x3f808001) == 0x3f81);
  CHECK(stored(0x3f817fff) == 0x3f81);
  CHECK(stored(0x3f818000) == 0x3f82);  // halfway from 0x3f81
  CHECK(stored(0xbf818000) == 0xbf82);
  CHECK(stored(0x3fffffff) == 0x4000);  // into the next binade
  CHECK(stored(0x80000000) == 0x8000);
}

TEST_CASE("a BF16 of the smallest and the largest numbers") {
  CHECK(stored(0x00000001) == 0x0000);
  CHECK(stored(0x00008000) == 0x0000);  // half the smallest, and 0 is even
  CHECK(stored(0x00008001) == 0x0001);
  CHECK(stored(0x007fffff) == 0x0080);  // the largest denormal becomes normal
  CHECK(stored(0x80018000) == 0x8002);
  CHECK(stored(0x7f7f7fff) == 0x7f7f);
  CHECK(stored(0x7f7f8000) == 0x7f80);  // halfway beyond the largest: infinity
  CHECK(stored(0x7f800000) == 0x7f80);
  CHECK(stored(0xff800000) == 0xff80);
  for (const uint32_t nan : {0x7f800001u, 0x7fc00000u, 0xff80ffffu, 0xffffffffu, 0x7fffffffu}) {
    CHECK(std::isnan(static_cast<float>(BFloat16(float_of(nan)))));
  }
}

TEST_CASE("no other BF16 is nearer, for any bits") {
  const Random random(3, 1);
  for (uint64_t i = 0; i < 20000; ++i) {
    const float x = float_of(random.words(i)[0]);
    if (!std::isfinite(x) || std::abs(x) > 3e38f) continue;
    const BFloat16 near(x);
    BFloat16 above = near, below = near;
    ++above.bits;
    --below.bits;
    const double error = std::abs(double{x} - double{near});
    CHECK(error <= std::abs(double{x} - double{above}));
    CHECK(((near.bits & 0x7fff) == 0 || error <= std::abs(double{x} - double{below})));
  }
}

TEST_CASE("every BF16 is itself again after widening") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 value;
    value.bits = static_cast<uint16_t>(bits);
    const float wide = value;
    if (std::isnan(wide)) {
      CHECK(std::isnan(static_cast<float>(BFloat16(wide))));
    } else if (BFloat16(wide).bits != bits) {
      FAIL("bits " << bits);
    }
  }
}

TEST_CASE("tensors are stored in BF16 and widened") {
  const Tensor x = normal_tensor({7, 11}, DType::F32, 1);
  const Tensor stored = converted(x, DType::BF16);
  CHECK(stored.dtype() == DType::BF16);
  CHECK(stored.bytes() == 2 * 77);
  CHECK(relative_error(stored, x) < 1.0 / 256);
  CHECK(same_bits(converted(converted(stored, DType::F32), DType::BF16), stored));
  CHECK(converted(stored, DType::F64).values() == stored.values());
  CHECK(converted(converted(x, DType::F64), DType::BF16).values() == stored.values());
  CHECK(same_bits(stored.slice(2, 5).clone(), converted(x.slice(2, 5), DType::BF16)));
  CHECK(Tensor::full({2}, 0.1, DType::BF16).values()[1] == 0.10009765625);
}

}  // namespace regla::test
