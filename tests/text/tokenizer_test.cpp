#include "text/tokenizer.h"

#include <algorithm>

#include "core/parallel.h"
#include "tests/catch.h"
#include "tests/text/support.h"
#include "text/bpe_trainer.h"
#include "text/byte_tokenizer.h"

using namespace regla;
using Ids = std::vector<int32_t>;

namespace {

std::unique_ptr<Tokenizer> small_tokenizer() {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "the cat and the other cat sat there\n\n";
  return train_bpe(text, 290);
}

// A byte tokenizer with two more added tokens: runs of spaces, looked for after normalisation.
std::unique_ptr<Tokenizer> with_added_tokens() {
  TokenizerParts parts = byte_parts();
  parts.split_words = false;
  parts.normalize = true;
  append_end_of_text(parts);
  parts.tokens.insert(parts.tokens.end(), {"  ", "   ", "caf\xC3\xA9"});
  parts.added.push_back({"  ", 257, false, true});
  parts.added.push_back({"   ", 258, false, true});
  parts.added.push_back({"caf\xC3\xA9", 259, false, true});
  return std::make_unique<Tokenizer>(std::move(parts));
}

}  // namespace

TEST_CASE("text comes back from its ids", "[text]") {
  const auto tokenizer = small_tokenizer();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::string text = test::random_bytes(1 + 37 * seed, seed);
    REQUIRE(tokenizer->decode(tokenizer->encode(text)) == text);
  }
  for (const char* text : {"", " ", "\n", "the cat", "'s", "the the  the"}) {
    CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("the end of text is a token only where asked for", "[text]") {
  const auto tokenizer = small_tokenizer();
  const int32_t end = tokenizer->end_of_text();
  const Ids plain = tokenizer->encode("a<|endoftext|>b");
  CHECK(std::count(plain.begin(), plain.end(), end) == 0);
  CHECK(tokenizer->decode(plain) == "a<|endoftext|>b");
  CHECK(tokenizer->encode_with_specials("a<|endoftext|>b") == Ids{'a', end, 'b'});
  CHECK(tokenizer->encode_with_specials("<|endoftext|><|endoftext|>") == Ids{end, end});
  CHECK(tokenizer->encode_with_specials("<|endoftext|") == tokenizer->encode("<|endoftext|"));
}

TEST_CASE("documents end with their token at any number of threads", "[text]") {
  const auto tokenizer = small_tokenizer();
  std::vector<std::string> texts;
  for (uint64_t i = 0; i < 100; ++i) texts.push_back("the cat " + test::random_bytes(i, i));
  const std::vector<std::string_view> documents(texts.begin(), texts.end());
  Ids expected;
  for (const std::string& text : texts) {
    const Ids ids = tokenizer->encode(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
    expected.push_back(tokenizer->end_of_text());
  }
  const int before = threads();
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    CHECK(tokenizer->encode_documents(documents) == expected);
  }
  set_threads(before);
  CHECK(tokenizer->encode_documents({}).empty());
}

TEST_CASE("added tokens are found in the text, the longest first", "[text]") {
  const auto tokenizer = with_added_tokens();
  CHECK(tokenizer->encode("a b") == Ids{'a', ' ', 'b'});
  CHECK(tokenizer->encode("a  b") == Ids{'a', 257, 'b'});
  CHECK(tokenizer->encode("     ") == Ids{258, 257});
  CHECK(tokenizer->encode("cafe\xCC\x81!") == Ids{259, '!'});  // after normalisation
  CHECK(tokenizer->decode(Ids{258, 'a', 256}) == "   a<|endoftext|>");
  const auto again = tokenizer_from_json(tokenizer->to_json());
  CHECK(again->to_json() == tokenizer->to_json());
  CHECK(again->encode("cafe\xCC\x81   ") == Ids{259, 258});
}

TEST_CASE("bytes without a token become U+FFFD", "[text]") {
  TokenizerParts parts = byte_parts();
  parts.byte_ids[0xFF] = -1;
  append_end_of_text(parts);
  const Tokenizer tokenizer(std::move(parts));
  CHECK(tokenizer.decode(tokenizer.encode("a\xFFz")) == "a\xEF\xBF\xBDz");
}

TEST_CASE("ids outside the vocabulary are refused", "[text]") {
  const auto tokenizer = byte_tokenizer();
  CHECK(test::error_of([&] { tokenizer->decode(Ids{257}); }) ==
        "[tokenizer] expected ids from 0 to 256, got 257");
  CHECK_THROWS_AS(tokenizer->decode(Ids{-1}), Error);
}

TEST_CASE("hashes tell tokenizers apart", "[text]") {
  CHECK(byte_tokenizer()->hash() == byte_tokenizer()->hash());
  CHECK(byte_tokenizer()->hash() != small_tokenizer()->hash());
}
