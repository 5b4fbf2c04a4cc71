#include "text/bpe.h"

#include <algorithm>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;

namespace {

std::array<int32_t, 256> own_values() {
  std::array<int32_t, 256> ids{};
  for (size_t i = 0; i < 256; ++i) ids[i] = static_cast<int32_t>(i);
  return ids;
}

std::vector<int32_t> encode(const Bpe& bpe, std::string_view word) {
  std::vector<int32_t> out;
  bpe.encode(word, out);
  return out;
}

// The definition, read literally: the first-learnt pair present, at its leftmost place, over and
// over.
std::vector<int32_t> slow_encode(const std::vector<Merge>& merges, std::string_view word) {
  std::vector<int32_t> ids;
  for (const char c : word) ids.push_back(static_cast<unsigned char>(c));
  for (size_t m = 0; m < merges.size();) {
    bool joined = false;
    for (size_t i = 0; i + 1 < ids.size() && !joined; ++i) {
      if (ids[i] != merges[m].left || ids[i + 1] != merges[m].right) continue;
      ids[i] = merges[m].result;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      joined = true;
    }
    m = joined ? 0 : m + 1;
  }
  return ids;
}

}  // namespace

TEST_CASE("pairs are joined in the order in which they were learnt", "[text]") {
  const Bpe bpe(own_values(), {{'b', 'c', 256}, {'a', 'b', 257}, {'a', 256, 258}});
  using Ids = std::vector<int32_t>;
  CHECK(encode(bpe, "abc") == Ids{258});  // bc first, though ab stands further left
  CHECK(encode(bpe, "ab") == Ids{257});
  CHECK(encode(bpe, "abab") == Ids{257, 257});
  CHECK(encode(bpe, "") == Ids{});
  CHECK(encode(bpe, "xbcx") == Ids{'x', 256, 'x'});
  const Bpe runs(own_values(), {{'a', 'a', 256}, {256, 256, 257}});
  CHECK(encode(runs, "aaa") == Ids{256, 'a'});
  CHECK(encode(runs, "aaaaaaa") == Ids{257, 256, 'a'});
}

TEST_CASE("encoding a word agrees with the definition read literally", "[text]") {
  const Random random(7, 1);
  uint64_t draw = 0;
  const auto pick = [&](uint32_t below) {
    return static_cast<int32_t>(random.words(draw++)[0] % below);
  };
  for (int round = 0; round < 50; ++round) {
    std::vector<Merge> merges;
    for (int32_t next = 256; next < 280;) {
      const auto token = [&] {
        const int32_t t = pick(3 + static_cast<uint32_t>(next) - 256);
        return t < 3 ? 'a' + t : 253 + t;
      };
      const Merge merge{token(), token(), next};
      const bool known = std::any_of(merges.begin(), merges.end(), [&](const Merge& m) {
        return m.left == merge.left && m.right == merge.right;
      });
      if (known) continue;
      merges.push_back(merge);
      ++next;
    }
    const Bpe bpe(own_values(), merges);
    std::string word;
    for (int i = 0; i < 60; ++i) word.push_back(static_cast<char>('a' + pick(3)));
    REQUIRE(encode(bpe, word) == slow_encode(merges, word));
  }
}

TEST_CASE("a word of a million bytes is no trap", "[text]") {
  const Bpe bpe(own_values(), {{'=', '=', 256}, {256, 256, 257}});
  CHECK(encode(bpe, std::string(1 << 20, '=')) == std::vector<int32_t>(1 << 18, 257));
}

TEST_CASE("a BPE without the bytes of UTF-8 or with a double merge is refused", "[text]") {
  auto ids = own_values();
  CHECK(Bpe(ids, {}).knows_every_byte());
  ids[0xFF] = -1;
  CHECK_FALSE(Bpe(ids, {}).knows_every_byte());
  CHECK(encode(Bpe(ids, {}), "a\xFF") == std::vector<int32_t>{'a'});
  ids['a'] = -1;
  CHECK_THROWS_AS(Bpe(ids, {}), Error);
  CHECK_THROWS_AS(Bpe(own_values(), {{'a', 'b', 256}, {'a', 'b', 257}}), Error);
}
