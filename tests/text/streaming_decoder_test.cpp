#include "text/streaming_decoder.h"

#include "core/random.h"
#include "tests/error_of.h"
#include "tests/matchers.h"
#include "text/byte_tokenizer.h"
#include "text/unicode.h"

namespace regla::test {
namespace {

/// What a decoder gives for the bytes of a text, one by one; the parts have to be whole characters.
std::string streamed(const std::string& bytes, const std::vector<std::string>& stops = {}) {
  const auto tokenizer = byte_tokenizer();
  StreamingDecoder decoder(*tokenizer, stops);
  std::string text;
  const auto take = [&](const std::string& part) {
    CHECK(count_invalid_utf8(part) == 0);
    text += part;
  };
  for (const int32_t id : tokenizer->encode(bytes)) take(decoder.add(id));
  take(decoder.finish());
  return text;
}

}  // namespace

TEST_CASE("characters come as soon as they are whole") {
  const auto tokenizer = byte_tokenizer();
  StreamingDecoder decoder(*tokenizer);
  std::vector<std::string> parts;
  for (const int32_t id : tokenizer->encode("a\xc3\xa9\xf0\x9f\x98\x80!")) {
    parts.push_back(decoder.add(id));
  }
  CHECK(parts ==
        std::vector<std::string>{"a", "", "\xc3\xa9", "", "", "", "\xf0\x9f\x98\x80", "!"});
  CHECK(decoder.finish() == "");
  CHECK_FALSE(decoder.has_stopped());
}

TEST_CASE("half a character is replaced when it is known to stay one") {
  const auto tokenizer = byte_tokenizer();
  StreamingDecoder decoder(*tokenizer);
  const auto add = [&](const char* byte) { return decoder.add(tokenizer->encode(byte)[0]); };
  CHECK(add("\xe2") == "");
  CHECK(add("\x82") == "");
  CHECK(add("a") == "\uFFFD\uFFFDa");
  CHECK(add("\xed") == "");
  CHECK(add("\xa0") == "\uFFFD\uFFFD");  // half of a surrogate pair
  CHECK(add("\xc0") == "\uFFFD");        // begins nothing
  CHECK(add("\x80") == "\uFFFD");
  CHECK(add("\xf4") == "");
  CHECK(add("\x90") == "\uFFFD\uFFFD");  // beyond the last code point
  CHECK(add("\xf0") == "");
  CHECK(decoder.finish() == "\uFFFD");
}

TEST_CASE("a stream of any bytes is the text with its invalid bytes replaced") {
  const std::string alphabet =
      "ab\x80\x9f\xa0\xbf\xc2\xc3\xe0\xe2\x82\xac\xed\xef\xf0\x90\xf4\xf5\xff";
  const Random random(1, 7);
  for (uint64_t i = 0; i < 3000; ++i) {
    std::string bytes;
    for (uint64_t k = 0; k < 1 + i % 12; ++k) {
      bytes += alphabet[random.words(i * 16 + k)[0] % alphabet.size()];
    }
    INFO(printable(bytes));
    CHECK(streamed(bytes) == replace_invalid_utf8(bytes));
    CHECK(streamed(bytes, {"\xe2\x82\xac", "ab", "\xf0\x90z"}) ==
          replace_invalid_utf8(
              bytes.substr(0, std::min(bytes.find("\xe2\x82\xac"), bytes.find("ab")))));
  }
}

TEST_CASE("a text ends before the first stop string, and shows none of it") {
  CHECK(streamed("one two three", {"two"}) == "one ");
  CHECK(streamed("one two three", {"three", "two"}) == "one ");
  CHECK(streamed("aaab", {"aab"}) == "a");
  CHECK(streamed("ababac", {"abac"}) == "ab");
  CHECK(streamed("one tw", {"two"}) == "one tw");
  CHECK(streamed("x\xc3\xa9y", {"\xc3\xa9"}) == "x");
  CHECK(streamed("stop", {"stop"}) == "");
  const auto tokenizer = byte_tokenizer();
  StreamingDecoder decoder(*tokenizer, {"\n\n"});
  std::string text;
  for (const int32_t id : tokenizer->encode("a\nb\n")) text += decoder.add(id);
  CHECK(text == "a\nb");  // the last line end may begin a stop string
  CHECK_FALSE(decoder.has_stopped());
  text += decoder.add(tokenizer->encode("\n")[0]);
  CHECK(decoder.has_stopped());
  CHECK(decoder.add(tokenizer->encode("c")[0]) == "");
  CHECK(decoder.finish() == "");
  CHECK(text == "a\nb");
  CHECK_THAT(error_of([&] {
               StreamingDecoder(*tokenizer, {"a", ""});
             }),
             Contains("at least one byte"));
}

}  // namespace regla::test
