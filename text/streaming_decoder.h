#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace regla {

/// Turns tokens into text as they come, whole characters only: what `add` and `finish` give is
/// together `replace_invalid_utf8` of what the tokens decode to. With stop strings it ends before
/// the first of them, and nothing is given that may yet turn out to be the beginning of one.
class StreamingDecoder {
 public:
  /// `tokenizer` must live as long. An Error for a stop string that is empty.
  explicit StreamingDecoder(const Tokenizer& tokenizer, std::vector<std::string> stops = {});

  /// Takes a token and gives what can be shown now; nothing once a stop string was found.
  std::string add(int32_t id);
  /// What is still held back, where no token follows.
  std::string finish();
  /// Whether a stop string was found.
  bool has_stopped() const { return has_stopped_; }

 private:
  std::string taken(size_t bytes);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string held_;  // bytes that were not given yet
  bool has_stopped_ = false;
};

}  // namespace regla
