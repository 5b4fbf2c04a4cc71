#pragma once

#include <cstddef>
#include <string_view>

namespace regla {

/// The end of the word that begins at `text[begin]` (begin < text.size()), where the words of a
/// text are the successive matches of GPT-2's pattern (Radford et al. 2019)
///
///     '(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// Words cover the text without gaps, so the next one begins where this one ends. Bytes that are
/// not valid UTF-8 count as characters outside \s, \p{L} and \p{N}.
size_t word_end(std::string_view text, size_t begin);

}  // namespace regla
