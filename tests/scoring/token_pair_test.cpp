#include "scoring/token_pair.h"

#include "core/check.h"
#include "tests/matchers.h"
#include "text/byte_tokenizer.h"

namespace regla {
namespace {

using Ids = std::vector<int32_t>;
constexpr int32_t kEnd = 256;

/// A tokenizer that joins "ab", so that a continuation can change the tokens of its context.
Tokenizer joining() {
  TokenizerParts parts = byte_parts();
  parts.tokens.emplace_back("ab");
  parts.merges.push_back({'a', 'b', 256});
  append_end_of_text(parts);
  parts.split_words = false;
  return Tokenizer(std::move(parts));
}

}  // namespace

TEST_CASE("white space at the end of a context is moved to the continuation") {
  const auto tokenizer = byte_tokenizer();
  const TokenPair pair = EncodedContext(*tokenizer, "a \n").with("b");
  CHECK(pair.context == Ids{'a'});
  CHECK(pair.continuation == Ids{' ', '\n', 'b'});
  CHECK(EncodedContext(*tokenizer, "a\u3000").with("b").continuation.size() == 4);
}

TEST_CASE("the tokens of a continuation are those behind as many as the context has alone") {
  const Tokenizer tokenizer = joining();
  const TokenPair pair = EncodedContext(tokenizer, "xa").with("bc");
  CHECK(pair.context == Ids{'x', 'a'});  // and not the ab of the whole text
  CHECK(pair.continuation == Ids{'c'});
  CHECK_THROWS_WITH(EncodedContext(tokenizer, "xa").with("b"), Contains("a token of its own"));
}

TEST_CASE("an empty context is the end of a text") {
  const auto tokenizer = byte_tokenizer();
  const TokenPair pair = EncodedContext(*tokenizer, "").with("b");
  CHECK(pair.context == Ids{kEnd});
  CHECK(pair.continuation == Ids{'b'});
  const TokenPair own = EncodedContext(*tokenizer, "").with("<|endoftext|>b");
  CHECK(own.context == Ids{kEnd});
  CHECK(own.continuation == Ids{'b'});
  CHECK_THROWS_AS(EncodedContext(*tokenizer, "").with(""), Error);
  CHECK_THROWS_AS(EncodedContext(*tokenizer, "").with("<|endoftext|>"), Error);
  CHECK_THROWS_WITH(EncodedContext(*tokenizer, " \n"), Contains("more than white space"));
}

TEST_CASE("windows predict each token once, the last from as many as fit") {
  const auto tokenizer = byte_tokenizer();
  const std::vector<TokenPair> windows = rolling_windows(*tokenizer, "0123456789", 4);
  REQUIRE(windows.size() == 3);
  CHECK(windows[0].context == Ids{kEnd});
  CHECK(windows[0].continuation == Ids{'0', '1', '2', '3'});
  CHECK(windows[1].context == Ids{'3'});
  CHECK(windows[1].continuation == Ids{'4', '5', '6', '7'});
  CHECK(windows[2].context == Ids{'5', '6', '7'});
  CHECK(windows[2].continuation == Ids{'8', '9'});
  CHECK(rolling_windows(*tokenizer, "0", 4).size() == 1);
  CHECK(rolling_windows(*tokenizer, "0123", 4).size() == 1);
  CHECK(rolling_windows(*tokenizer, "", 4).empty());
}

}  // namespace regla
