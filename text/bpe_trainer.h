#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "text/tokenizer.h"

namespace regla {

/// Learns a byte-level BPE from a text: the adjacent pair of tokens that occurs most often within
/// words becomes a token, until there are `vocab_size` entries. Among pairs that are equally
/// frequent the one with the smaller left id wins, then the smaller right id, so the same text
/// always gives the same tokenizer.
///
/// Ids 0..255 are the bytes, then come the merged tokens as they were learnt, then `<|endoftext|>`
/// as the last one. Pairs seen only once are not merged: a text that runs out of others gives a
/// tokenizer with fewer entries, which its vocab_size() tells.
/// Error: vocab_size < 257, which is what the bytes and the end of text need.
std::unique_ptr<Tokenizer> train_bpe(std::string_view text, int32_t vocab_size);

}  // namespace regla
