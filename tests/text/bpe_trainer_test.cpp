#include "text/bpe_trainer.h"

#include <fstream>
#include <iterator>

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;

namespace {

std::string token(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.decode(std::span<const int32_t>(&id, 1));
}

}  // namespace

TEST_CASE("the most frequent pairs become tokens", "[text]") {
  // "low" three times, "lower" twice: lo and ow occur 5 times each, and "l" < "o".
  const auto bpe = train_bpe("low\nlow\nlow\nlower\nlower\n", 260);
  REQUIRE(bpe->vocab_size() == 260);
  CHECK(token(*bpe, 256) == "lo");
  CHECK(token(*bpe, 257) == "low");
  CHECK(token(*bpe, 258) == "er");  // er and low+e occur twice each, and "e" < "low"
  CHECK(token(*bpe, 259) == "<|endoftext|>");
  CHECK(bpe->end_of_text() == 259);
  CHECK(bpe->encode("lower") == std::vector<int32_t>{257, 258});
  CHECK(bpe->encode("lot") == std::vector<int32_t>{256, 't'});
}

TEST_CASE("pairs are counted within words only", "[text]") {
  const auto bpe = train_bpe("a1 a1 a1 a1", 300);
  CHECK(token(*bpe, 256) == " a");  // never "a1" nor "1 "
  CHECK(bpe->vocab_size() == 258);
}

TEST_CASE("a text that runs out of pairs gives fewer entries", "[text]") {
  CHECK(train_bpe("", 1000)->vocab_size() == 257);
  CHECK(train_bpe("abc def", 1000)->vocab_size() == 257);  // every pair is seen once
  CHECK(train_bpe("abab", 1000)->vocab_size() == 258);
  CHECK(train_bpe("anything at all", 257)->vocab_size() == 257);
  CHECK_THROWS_AS(train_bpe("abc", 256), Error);
  CHECK_THROWS_AS(train_bpe("abc", -1), Error);
}

TEST_CASE("a token that two merges spell is one entry", "[text]") {
  // "abc" comes about as a+bc in one word and as ab+c in another.
  std::string text;
  for (int i = 0; i < 40; ++i) text += "bc bc abx abx abc zabcq\n";
  const auto bpe = train_bpe(text, 400);
  const auto again = tokenizer_from_json(bpe->to_json());  // would refuse a name twice
  CHECK(again->encode(text) == bpe->encode(text));
  CHECK(bpe->decode(bpe->encode(text)) == text);
}

TEST_CASE("training is deterministic and its tokenizers are exact", "[text]") {
  std::string text = test::random_bytes(5000, 3);
  for (int i = 0; i < 50; ++i) text += " the cat sat on the mat, aaaaaaa caf\xC3\xA9";
  const auto a = train_bpe(text, 400), b = train_bpe(text, 400);
  CHECK(a->to_json() == b->to_json());
  CHECK(a->vocab_size() <= 400);
  const std::string other = test::random_bytes(5000, 4) + " the hat <|endoftext|>";
  CHECK(a->decode(a->encode(text)) == text);
  CHECK(a->decode(a->encode(other)) == other);
}

TEST_CASE("WikiText-2 trains to 8,192 entries", "[text][data]") {
  if (test::data_folder().empty()) {
    test::skip("REGLA_DATA is unset");
    return;
  }
  std::ifstream file(test::data_folder() + "/wikitext-2/wiki.valid.tokens", std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  REQUIRE_FALSE(text.empty());
  const auto bpe = train_bpe(text, 8192);
  CHECK(bpe->vocab_size() == 8192);
  const auto ids = bpe->encode(text);
  CHECK(bpe->decode(ids) == text);
  CHECK(static_cast<double>(text.size()) / static_cast<double>(ids.size()) > 3.5);
}
