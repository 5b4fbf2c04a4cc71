#include "text/byte_tokenizer.h"

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;

TEST_CASE("the byte tokenizer's ids are the bytes", "[text]") {
  const auto bytes = byte_tokenizer();
  CHECK(bytes->vocab_size() == 257);
  CHECK(bytes->end_of_text() == 256);
  CHECK(bytes->encode("a\n\xFF") == std::vector<int32_t>{97, 10, 255});
  CHECK(bytes->encode("").empty());
  const std::string text = test::random_bytes(4096, 2) + "<|endoftext|>";
  CHECK(bytes->encode(text).size() == text.size());
  CHECK(bytes->decode(bytes->encode(text)) == text);
}

TEST_CASE("the byte tokenizer is a tokenizer.json like any other", "[text]") {
  const auto bytes = byte_tokenizer();
  const auto again = tokenizer_from_json(bytes->to_json());
  CHECK(again->to_json() == bytes->to_json());
  CHECK(again->vocab_size() == 257);
  CHECK(again->encode("two  words\xC3") == bytes->encode("two  words\xC3"));
}
