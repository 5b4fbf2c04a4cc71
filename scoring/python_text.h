#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace regla {

// What Python's `str` and `re` do, on text in UTF-8. Tasks are defined by programs in Python, and
// some of their texts hold more than ASCII's white space.

/// `c.isspace()`, which is also what `\s` matches.
bool is_python_space(int32_t code);
/// `text.lstrip()`, `text.rstrip()` and `text.strip()`.
std::string_view left_stripped(std::string_view text);
std::string_view right_stripped(std::string_view text);
std::string_view stripped(std::string_view text);
/// `len(text)`: code points.
int64_t count_characters(std::string_view text);
/// `len(re.split(r"\s+", text))`
int64_t count_split_words(std::string_view text);
/// `text.replace(from, to)`, with something to look for.
std::string replaced(std::string_view text, std::string_view from, std::string_view to);

}  // namespace regla
