#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace regla {

/// A context and its continuation in tokens; neither is empty.
struct TokenPair {
  std::vector<int32_t> context, continuation;
};

/// A context, encoded once for all its continuations. White space at its end is moved to them, so
/// that a word is cut as it would be in running text.
class EncodedContext {
 public:
  EncodedContext(const Tokenizer& tokenizer, std::string_view text);

  /// The tokens of the context, and those that the whole text has behind so many. The empty text's
  /// context is `<|endoftext|>`. Errors: a context of nothing but white space, a continuation that
  /// has no token of its own.
  TokenPair with(std::string_view continuation) const;

 private:
  const Tokenizer& tokenizer_;
  std::string text_, moved_;
  std::vector<int32_t> ids_;
};

/// A text cut into windows of at most `length` inputs, in each of which what no window before
/// predicted is the continuation: the first is predicted from `<|endoftext|>` on, the last from as
/// many tokens as fit. Nothing for a text without tokens.
std::vector<TokenPair> rolling_windows(const Tokenizer& tokenizer, std::string_view text,
                                       int64_t length);

}  // namespace regla
