#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace regla {

/// What the pre-tokeniser needs to know about a character: \p{L}, \p{N}, \s or none of them.
enum class CharClass : uint8_t { Letter, Number, Space, Other };

/// One character of a UTF-8 text.
struct Utf8Char {
  int32_t code;  // -1 for a byte that is not part of valid UTF-8; such a byte stands alone
  size_t bytes;
};

/// The character that begins at `text[at]`, with at < text.size().
Utf8Char utf8_char(std::string_view text, size_t at);

/// The class of a code point by its Unicode general category and the White_Space property; an
/// invalid byte (-1) is Other.
CharClass char_class(int32_t code);

/// Whether a code point is assigned to a character other than control characters and those for
/// private use.
bool is_visible(int32_t code);

/// The version of Unicode that classes and normal forms follow.
std::string unicode_version();

/// The number of bytes that belong to no valid UTF-8 sequence.
int64_t count_invalid_utf8(std::string_view text);

/// The number of bytes, 3 at most, at the end of a text that begin a character without ending it:
/// whether they are valid depends on what follows.
size_t unfinished_utf8(std::string_view text);

/// The text with every invalid byte replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

/// The text as a terminal and a reader can take it, for messages: control characters, ends of lines
/// and characters that turn the direction of writing are written as \n or \u001b, and bytes that
/// are not valid UTF-8 as \xff. What is JSON stays JSON. `kept` are characters that stay as they
/// are.
std::string printable(std::string_view text, std::string_view kept = "");

/// The first character in title case and the others in lower case, by Unicode's full mappings: "ǆ"
/// and "ß" become "ǅ" and "Ss", a final Σ becomes ς. What Python calls `capitalize`.
std::string capitalized(std::string_view text);

/// Normalisation form C of the valid parts; invalid bytes stay where they are.
std::string nfc(std::string_view text);

}  // namespace regla
