#include "text/batches.h"

#include <algorithm>
#include <numeric>

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;
using Ids = std::vector<int32_t>;

namespace {

Ids counting(int32_t count) {
  Ids ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

}  // namespace

TEST_CASE("the state is cleared at each end of text, the first id included", "[text]") {
  CHECK(document_resets(Ids{7, 1, 2, 7, 7, 3}, 7) == Ids{1, 0, 0, 1, 1, 0});
  CHECK(document_resets(Ids{}, 7).empty());
}

TEST_CASE("streams, segments and targets are where the header says", "[text]") {
  // N = 15, B = 2, T = 3: M = floor(14 / 6) = 2; streams own inputs 0..5 and 6..11.
  const Ids ids = counting(15);
  const Batches batches(ids, 2, 3, 4);
  REQUIRE(batches.segments() == 2);
  const Batch a = batches.at(0), b = batches.at(1);
  CHECK(a.inputs == Ids{0, 1, 2, 6, 7, 8});
  CHECK(a.targets == Ids{1, 2, 3, 7, 8, 9});
  CHECK(a.reset == Ids{0, 0, 0, 0, 0, 0});
  CHECK(b.inputs == Ids{3, 4, 5, 9, 10, 11});
  CHECK(b.targets == Ids{4, 5, 6, 10, 11, 12});
  CHECK(b.reset == Ids{0, 1, 0, 0, 0, 0});
  CHECK(a.first);
  CHECK_FALSE(b.first);
  CHECK(a.batch == 2);
  CHECK(a.length == 3);
}

TEST_CASE("an epoch repeats", "[text]") {
  const Ids ids = counting(30);
  const Batches batches(ids, 2, 3, 0);
  REQUIRE(batches.segments() == 4);
  for (int64_t step = 0; step < 4; ++step) {
    CHECK(batches.at(step).inputs == batches.at(step + 8).inputs);
    CHECK(batches.at(step + 4).first == (step == 0));
  }
  CHECK_THROWS_AS(batches.at(-1), Error);
}

TEST_CASE("an epoch shows each of its inputs once", "[text]") {
  for (const int32_t count : {25, 26, 48, 49, 100}) {
    const Ids ids = counting(count);
    const Batches batches(ids, 3, 8, 0);
    Ids seen;
    for (int64_t step = 0; step < batches.segments(); ++step) {
      const Batch batch = batches.at(step);
      seen.insert(seen.end(), batch.inputs.begin(), batch.inputs.end());
      for (size_t i = 0; i < batch.inputs.size(); ++i) {
        REQUIRE(batch.targets[i] == batch.inputs[i] + 1);
      }
    }
    std::sort(seen.begin(), seen.end());
    CHECK(seen == counting(static_cast<int32_t>((count - 1) / 24 * 24)));
  }
}

TEST_CASE("too little data or a batch of nothing is refused", "[text]") {
  const Ids ids = counting(7);
  CHECK(Batches(ids, 2, 3, 0).segments() == 1);
  CHECK(test::error_of([&] { Batches(std::span(ids).first(6), 2, 3, 0); }) ==
        "[batches] expected more than batch 2 x sequence 3 tokens, got 6");
  CHECK_THROWS_AS(Batches({}, 1, 1, 0), Error);
  CHECK_THROWS_AS(Batches(ids, 0, 3, 0), Error);
  CHECK_THROWS_AS(Batches(ids, 3, 0, 0), Error);
  CHECK_THROWS_AS(Batches(ids, -1, 3, 0), Error);
  CHECK_THROWS_AS(Batches(ids, INT64_MAX, INT64_MAX, 0), Error);
}
