#include "text/byte_tokenizer.h"

#include <utility>

namespace regla {

TokenizerParts byte_parts() {
  TokenizerParts parts;
  for (int32_t byte = 0; byte < 256; ++byte) {
    parts.tokens.emplace_back(1, static_cast<char>(byte));
    parts.byte_ids[static_cast<size_t>(byte)] = byte;
  }
  return parts;
}

void append_end_of_text(TokenizerParts& parts) {
  const auto id = static_cast<int32_t>(parts.tokens.size());
  parts.tokens.emplace_back(kEndOfText);
  parts.added.push_back({std::string(kEndOfText), id, true, false});
}

std::unique_ptr<Tokenizer> byte_tokenizer() {
  TokenizerParts parts = byte_parts();
  parts.split_words = false;
  append_end_of_text(parts);
  return std::make_unique<Tokenizer>(std::move(parts));
}

}  // namespace regla
