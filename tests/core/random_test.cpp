#include "core/random.h"

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "core/normal_numbers.h"
#include "tests/matchers.h"

namespace regla {
namespace {

using Words = std::array<uint32_t, 4>;

/// The generator with counter (c0, c1, c2, c3) and key (k0, k1).
Words philox(const Words& c, uint32_t k0, uint32_t k1) {
  const auto joined = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  return Random(joined(k0, k1), joined(c[2], c[3])).words(joined(c[0], c[1]));
}

}  // namespace

TEST_CASE("Philox 4x32-10 gives the published answers") {
  // Random123's kat_vectors.
  CHECK(philox({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, ones, ones) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform numbers fill [0, 1) evenly") {
  const Random random(5, 6);
  const int count = 200000;
  double sum = 0, squares = 0, low = 1, high = 0;
  int tenths[10] = {};
  for (int i = 0; i < count; ++i) {
    const double u = random.uniform(static_cast<uint64_t>(i));
    sum += u;
    squares += u * u;
    low = std::min(low, u);
    high = std::max(high, u);
    ++tenths[static_cast<int>(u * 10)];
  }
  CHECK(low >= 0);
  CHECK(high < 1);
  CHECK(sum / count == Approx(0.5).margin(0.003));
  CHECK(squares / count == Approx(1.0 / 3).margin(0.003));
  for (int tenth : tenths) CHECK(tenth == Approx(count / 10).margin(600));
}

TEST_CASE("normal numbers have the moments of the normal distribution") {
  const Random random(7, 8);
  const int count = 200000;
  double moment[5] = {};
  for (int i = 0; i < count; ++i) {
    const double x = random.normal(static_cast<uint64_t>(i));
    REQUIRE(std::isfinite(x));
    for (int power = 1; power <= 4; ++power) moment[power] += std::pow(x, power) / count;
  }
  CHECK(moment[1] == Approx(0).margin(0.01));
  CHECK(moment[2] == Approx(1).margin(0.015));
  CHECK(moment[3] == Approx(0).margin(0.03));
  CHECK(moment[4] == Approx(3).margin(0.1));
}

TEST_CASE("normal numbers written together have the bits of those drawn one by one") {
  const Random random(9, 10);
  int64_t differ = 0;
  for (const double deviation : {0.02, 1.0, 1 / std::sqrt(768.0)}) {
    for (const auto& [first, count] : std::vector<std::pair<uint64_t, int64_t>>{
             {0, 1}, {3, 16}, {(uint64_t{1} << 32) - 100, 517}, {1 << 20, 1 << 20}}) {
      std::vector<float> floats(static_cast<size_t>(count));
      std::vector<double> doubles(floats.size());
      write_normal(random, deviation, first, count, floats.data());
      write_normal(random, deviation, first, count, doubles.data());
      for (size_t i = 0; i < floats.size(); ++i) {
        const double expected = deviation * random.normal(first + i);
        differ += floats[i] != static_cast<float>(expected) || doubles[i] != expected;
      }
    }
  }
  CHECK(differ == 0);
}

TEST_CASE("seed, stream and index each give other numbers, and the same ones again") {
  std::set<double> seen;
  for (uint64_t high : {uint64_t{0}, uint64_t{1} << 40}) {
    for (uint64_t i = 0; i < 10; ++i) {
      seen.insert(Random(1 + high, 2).uniform(i));
      seen.insert(Random(100 + high, 2).uniform(i));
      seen.insert(Random(1 + high, 3).uniform(i));
      seen.insert(Random(1, 2 + 9 * high + 9).uniform(i));
      seen.insert(Random(1, 200).uniform(i + high));
    }
  }
  CHECK(seen.size() == 100);
  CHECK(Random(1, 2).uniform(3) == Random(1, 2).uniform(3));
}

}  // namespace regla
