#include "scoring/python_random.h"

#include "core/check.h"
#include "tests/matchers.h"

namespace regla {

// The numbers are what Python 3.11 prints.
TEST_CASE("the numbers are those of Python's random") {
  PythonRandom random(1234);
  CHECK(random.word() == 4150886329);
  CHECK(random.word() == 3342196574);
  CHECK(random.word() == 1892932127);
  CHECK(random.word() == 501869158);
  CHECK(random.real() == 0.007491470058587191);
  CHECK(random.real() == 0.9109759624491242);
  CHECK(random.real() == 0.939268997363764);
  PythonRandom zero(0);
  for (int i = 0; i < 1300; ++i) zero.word();  // the state was renewed twice
  CHECK(zero.word() == 3200651262);
  CHECK(PythonRandom(4294967295).word() == 2728839433);
}

TEST_CASE("samples are drawn by both of Python's ways, one after the other") {
  using Numbers = std::vector<int64_t>;
  PythonRandom random(1234);
  CHECK(random.sample(10, 3) == Numbers{7, 1, 0});
  CHECK(random.sample(21, 5) == Numbers{2, 18, 1, 20, 3});   // the last from a copy
  CHECK(random.sample(22, 5) == Numbers{11, 7, 0, 20, 19});  // the first without one
  CHECK(random.sample(85, 6) == Numbers{61, 78, 59, 19, 11, 23});
  CHECK(random.sample(86, 6) == Numbers{14, 1, 64, 62, 31, 8});
  CHECK(random.sample(1838, 6) == Numbers{1366, 1108, 954, 140, 1231, 1382});
  CHECK(random.sample(6, 6) == Numbers{0, 4, 5, 1, 3, 2});
  CHECK(random.sample(7, 0).empty());
  CHECK(random.sample(1, 1) == Numbers{0});
  CHECK(random.word() == 3651488269);  // no number more and no number less was used
  CHECK_THROWS_WITH(random.sample(3, 4), Contains("at most 3"));
  CHECK_THROWS_AS(random.below(0), Error);
}

}  // namespace regla
