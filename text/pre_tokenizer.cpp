#include "text/pre_tokenizer.h"

#include <array>

#include "text/unicode.h"

namespace regla {
namespace {

struct ClassifiedChar {
  CharClass kind;
  size_t bytes;
};

constexpr std::array<CharClass, 128> make_ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool number = c >= '0' && c <= '9';
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    classes[static_cast<size_t>(c)] = letter   ? CharClass::Letter
                                      : number ? CharClass::Number
                                      : space  ? CharClass::Space
                                               : CharClass::Other;
  }
  return classes;
}
constexpr std::array<CharClass, 128> kAsciiClasses = make_ascii_classes();

inline ClassifiedChar classify(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 128) return {kAsciiClasses[byte], 1};
  const Utf8Char c = utf8_char(text, at);
  return {char_class(c.code), c.bytes};
}

// The length of a contraction 's 't 're 've 'm 'll 'd at text[at], or 0.
size_t contraction(std::string_view text, size_t at) {
  if (text[at] != '\'' || at + 1 >= text.size()) return 0;
  const char a = text[at + 1];
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (at + 2 >= text.size()) return 0;
  const char b = text[at + 2];
  const bool three = ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l');
  return three ? 3 : 0;
}

// \s+(?!\S)|\s+ : a run of white space leaves its last character to the word behind it, unless the
// text ends there or the run is that one character.
size_t space_end(std::string_view text, size_t begin) {
  size_t end = begin, last = begin;
  while (end < text.size()) {
    const ClassifiedChar c = classify(text, end);
    if (c.kind != CharClass::Space) break;
    last = end;
    end += c.bytes;
  }
  return end == text.size() || last == begin ? end : last;
}

}  // namespace

size_t word_end(std::string_view text, size_t begin) {
  if (const size_t length = contraction(text, begin)) return begin + length;
  ClassifiedChar first = classify(text, begin);
  size_t end = begin;
  if (text[begin] == ' ' && begin + 1 < text.size()) {
    const ClassifiedChar second = classify(text, begin + 1);
    if (second.kind != CharClass::Space) {
      first = second;
      end = begin + 1;
    }
  }
  if (first.kind == CharClass::Space) return space_end(text, begin);
  end += first.bytes;
  while (end < text.size()) {
    const ClassifiedChar c = classify(text, end);
    if (c.kind != first.kind) break;
    end += c.bytes;
  }
  return end;
}

}  // namespace regla
