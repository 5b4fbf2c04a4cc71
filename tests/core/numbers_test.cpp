#include "core/numbers.h"

#include <limits>

#include "tests/catch.h"

namespace regla::test {

TEST_CASE("integers are decimal, whatever they begin with") {
  CHECK(parse_integer("0100") == 100);
  CHECK(parse_integer("-0010") == -10);
  CHECK(parse_integer("+1") == 1);
  CHECK(parse_integer("0") == 0);
  CHECK(parse_integer("9223372036854775807") == std::numeric_limits<int64_t>::max());
  CHECK(parse_integer("-9223372036854775808") == std::numeric_limits<int64_t>::min());
  CHECK(parse_unsigned("18446744073709551615") == std::numeric_limits<uint64_t>::max());
  CHECK(parse_unsigned("007") == 7u);
}

TEST_CASE("what is no integer, or too large for one, is none") {
  for (const char* text : {"",
                           " ",
                           "+",
                           "-",
                           "+-1",
                           "-+1",
                           "++1",
                           "--1",
                           "0x10",
                           "0b1",
                           "1e3",
                           "1.0",
                           "1_000",
                           "1,000",
                           " 1",
                           "1 ",
                           "1\n",
                           "one",
                           "9223372036854775808",
                           "-9223372036854775809",
                           "99999999999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_integer(text).has_value());
  }
  for (const char* text : {"", "-1", "-0", "0x1", "18446744073709551616", "1e2"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_unsigned(text).has_value());
  }
}

TEST_CASE("real numbers need no digit before the point") {
  CHECK(parse_real(".001") == .001);
  CHECK(parse_real("-.5") == -.5);
  CHECK(parse_real("+.5") == .5);
  CHECK(parse_real("5.") == 5.0);
  CHECK(parse_real("1e-3") == 1e-3);
  CHECK(parse_real("1E+3") == 1000.0);
  CHECK(parse_real("0010") == 10.0);
  CHECK(parse_real("-0") == 0.0);
  CHECK(parse_real("1.7976931348623157e308") == std::numeric_limits<double>::max());
}

TEST_CASE("what is no finite real number is none") {
  for (const char* text : {"", ".", "e3", "1e", "1e+", "+-1", "0x10", "0x1p3", "inf", "-inf", "nan",
                           "infinity", "1e309", "-1e309", "1,5", "1.2.3", " 1", "1 ", "1f"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_real(text).has_value());
  }
}

}  // namespace regla::test
