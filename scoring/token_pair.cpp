#include "scoring/token_pair.h"

#include <algorithm>

#include "core/check.h"
#include "scoring/python_text.h"

namespace regla {

EncodedContext::EncodedContext(const Tokenizer& tokenizer, std::string_view text)
    : tokenizer_(tokenizer), text_(right_stripped(text)), moved_(text.substr(text_.size())) {
  if (text.empty()) return;
  check(!text_.empty(), "[eval] expected a context of more than white space");
  ids_ = tokenizer.encode_with_specials(text_);
}

TokenPair EncodedContext::with(std::string_view continuation) const {
  const std::vector<int32_t> whole =
      tokenizer_.encode_with_specials(text_ + moved_ + std::string(continuation));
  TokenPair pair = {ids_, {}};
  size_t used = ids_.size();
  if (text_.empty()) {
    // A text that begins with the token that stands for "nothing before" brings its own.
    const int32_t prefix = tokenizer_.end_of_text();
    pair.context = {prefix};
    used = !whole.empty() && whole[0] == prefix ? 1 : 0;
  }
  check(used < whole.size(), "[eval] expected a continuation with a token of its own");
  pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(used), whole.end());
  return pair;
}

std::vector<TokenPair> rolling_windows(const Tokenizer& tokenizer, std::string_view text,
                                       int64_t length) {
  std::vector<int32_t> ids = tokenizer.encode_with_specials(text);
  const auto count = static_cast<int64_t>(ids.size());
  ids.insert(ids.begin(), tokenizer.end_of_text());  // token t is now ids[t + 1]
  std::vector<TokenPair> windows;
  for (int64_t done = 0; done < count;) {
    const int64_t end = std::min(count, done + length);
    const int64_t begin = std::max<int64_t>(0, end - length);
    const auto at = [&](int64_t i) { return ids.begin() + i; };
    windows.push_back({{at(begin), at(done + 1)}, {at(done + 1), at(end + 1)}});
    done = end;
  }
  return windows;
}

}  // namespace regla
