#include "scoring/python_text.h"

#include "text/unicode.h"

namespace regla {
namespace {

/// The last character of a text that is not empty.
Utf8Char last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && text.size() - at < 4 && (text[at] & 0xC0) == 0x80) --at;
  const Utf8Char c = utf8_char(text, at);
  return at + c.bytes == text.size() ? c : Utf8Char{-1, 1};
}

}  // namespace

bool is_python_space(int32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

std::string_view left_stripped(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = utf8_char(text, 0);
    if (!is_python_space(c.code)) break;
    text.remove_prefix(c.bytes);
  }
  return text;
}

std::string_view right_stripped(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = last_character(text);
    if (!is_python_space(c.code)) break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

std::string_view stripped(std::string_view text) { return left_stripped(right_stripped(text)); }

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += utf8_char(text, at).bytes) ++count;
  return count;
}

int64_t count_split_words(std::string_view text) {
  int64_t words = 1;
  bool in_space = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    const bool is_space = is_python_space(c.code);
    if (is_space && !in_space) ++words;
    in_space = is_space;
    at += c.bytes;
  }
  return words;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t begin = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, begin)) {
    out.append(text, begin, at - begin).append(to);
    begin = at + from.size();
  }
  return out.append(text, begin);
}

}  // namespace regla
