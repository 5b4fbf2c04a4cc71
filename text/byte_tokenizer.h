#pragma once

#include <memory>

#include "text/tokenizer.h"

namespace regla {

/// The tokenizer without training: id b is byte b, 256 is `<|endoftext|>`, 257 entries. It is a
/// byte-level BPE without merges, hence a legal tokenizer.json like any other.
std::unique_ptr<Tokenizer> byte_tokenizer();

/// The 256 bytes with their own values as ids, no merges and no end-of-text token yet: what
/// training a BPE starts from.
TokenizerParts byte_parts();

/// Appends `<|endoftext|>` as the last id.
void append_end_of_text(TokenizerParts& parts);

}  // namespace regla
