#include "text/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdio>
#include <new>
#include <utility>
#include <vector>

#include "core/check.h"

namespace regla {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// The end of the longest valid stretch that begins at `at`.
size_t valid_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Char c = utf8_char(text, at);
    if (c.code < 0) break;
    at += c.bytes;
  }
  return at;
}

/// Whether canonical ordering may move a character. If it decomposes, into nothing but marks.
bool is_mark(int32_t code) {
  return code >= 0x300 && u_getIntPropertyValue(code, UCHAR_LEAD_CANONICAL_COMBINING_CLASS) != 0 &&
         u_getIntPropertyValue(code, UCHAR_TRAIL_CANONICAL_COMBINING_CLASS) != 0;
}

/// Decomposed marks in canonical order.
void append_in_order(std::string_view marks, const icu::Normalizer2& normalizer, std::string& out) {
  std::vector<std::pair<uint8_t, UChar32>> all;  // combining class, character
  const auto keep = [&](UChar32 code) { all.emplace_back(u_getCombiningClass(code), code); };
  icu::UnicodeString parts;
  for (size_t at = 0; at < marks.size();) {
    const Utf8Char c = utf8_char(marks, at);
    at += c.bytes;
    if (!normalizer.getDecomposition(c.code, parts)) {
      keep(c.code);
      continue;
    }
    for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) keep(parts.char32At(i));
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [order, code] : all) {
    char bytes[U8_MAX_LENGTH];
    int32_t used = 0;
    U8_APPEND_UNSAFE(bytes, used, code);
    out.append(bytes, static_cast<size_t>(used));
  }
}

/// A text of the same normal form in which long runs of marks are in order: ICU inserts each where
/// it belongs, which takes the square of their number. Empty where there are none.
std::string with_marks_in_order(std::string_view valid, const icu::Normalizer2& normalizer) {
  constexpr int64_t kLong = 64;
  std::string out;
  size_t done = 0;
  for (size_t at = 0; at < valid.size();) {
    const size_t begin = at;
    int64_t count = 0;
    Utf8Char c = utf8_char(valid, at);
    for (; is_mark(c.code); ++count) {
      at += c.bytes;
      if (at == valid.size()) break;
      c = utf8_char(valid, at);
    }
    if (count >= kLong) {
      out.append(valid.substr(done, begin - done));
      append_in_order(valid.substr(begin, at - begin), normalizer, out);
      done = at;
    }
    if (at < valid.size()) at += c.bytes;
  }
  if (done > 0) out.append(valid.substr(done));
  return out;
}

void append_nfc(std::string_view valid, std::string& out) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(status);
  std::string ordered;
  if (U_SUCCESS(status)) ordered = with_marks_in_order(valid, *normalizer);
  if (!ordered.empty()) valid = ordered;
  // ICU counts in 32 bits: parts are cut at spaces, which nothing composes across.
  constexpr size_t kPart = size_t{1} << 24;
  while (!valid.empty() && U_SUCCESS(status)) {
    size_t length = valid.size();
    if (length > kPart) {
      const size_t space = valid.find_first_of(" \n", kPart);
      if (space != std::string_view::npos) length = space;
    }
    check(length < (size_t{1} << 31), "[tokenizer] expected spaces or line ends in the text, got ",
          length, " bytes without");
    icu::StringByteSink<std::string> sink(&out);
    normalizer->normalizeUTF8(0, icu::StringPiece(valid.data(), static_cast<int32_t>(length)), sink,
                              nullptr, status);
    valid.remove_prefix(length);
  }
  if (status == U_MEMORY_ALLOCATION_ERROR) throw std::bad_alloc();
  check(U_SUCCESS(status), "[tokenizer] expected ICU to normalise the text, got ",
        u_errorName(status));
}

std::string lower_case(std::string_view text) {
  std::string out;
  UErrorCode status = U_ZERO_ERROR;
  icu::StringByteSink<std::string> sink(&out);
  icu::CaseMap::utf8ToLower("", 0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
                            sink, nullptr, status);
  check(U_SUCCESS(status), "[text] expected ICU to change the case, got ", u_errorName(status));
  return out;
}

/// A character alone.
std::string title_case(std::string_view character) {
  std::string out;
  UErrorCode status = U_ZERO_ERROR;
  icu::StringByteSink<std::string> sink(&out);
  icu::CaseMap::utf8ToTitle(
      "", U_TITLECASE_WHOLE_STRING | U_TITLECASE_NO_BREAK_ADJUSTMENT, nullptr,
      icu::StringPiece(character.data(), static_cast<int32_t>(character.size())), sink, nullptr,
      status);
  check(U_SUCCESS(status), "[text] expected ICU to change the case, got ", u_errorName(status));
  return out;
}

bool is_printable(int32_t code) {
  constexpr uint32_t kNot = U_GC_CC_MASK | U_GC_ZL_MASK | U_GC_ZP_MASK;
  return code >= 0 && (U_MASK(u_charType(code)) & kNot) == 0 &&
         !u_hasBinaryProperty(code, UCHAR_BIDI_CONTROL);
}

// As in C and JSON; `byte` is what stands there when it is no character.
std::string escaped(int32_t code, char byte) {
  if (code == '\n') return "\\n";
  char text[16];
  if (code < 0) {
    std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned>(byte) & 0xffu);
  } else {
    std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned>(code));
  }
  return text;
}

}  // namespace

Utf8Char utf8_char(std::string_view text, size_t at) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data()) + at;
  if (bytes[0] < 0x80) return {bytes[0], 1};
  const int32_t available = static_cast<int32_t>(std::min<size_t>(text.size() - at, 4));
  int32_t used = 0;
  UChar32 code;
  U8_NEXT(bytes, used, available, code);
  if (code < 0) return {-1, 1};
  return {code, static_cast<size_t>(used)};
}

CharClass char_class(int32_t code) {
  if (code < 0) return CharClass::Other;
  const uint32_t category = U_MASK(u_charType(code));
  if (category & U_GC_L_MASK) return CharClass::Letter;
  if (category & U_GC_N_MASK) return CharClass::Number;
  return u_isUWhiteSpace(code) ? CharClass::Space : CharClass::Other;
}

bool is_visible(int32_t code) {
  constexpr uint32_t kOthers = U_GC_CN_MASK | U_GC_CC_MASK | U_GC_CS_MASK | U_GC_CO_MASK;
  return (U_MASK(u_charType(code)) & kOthers) == 0;
}

std::string unicode_version() {
  UVersionInfo version;
  u_getUnicodeVersion(version);
  char text[U_MAX_VERSION_STRING_LENGTH];
  u_versionToString(version, text);
  return text;
}

int64_t count_invalid_utf8(std::string_view text) {
  int64_t invalid = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    invalid += c.code < 0;
    at += c.bytes;
  }
  return invalid;
}

size_t unfinished_utf8(std::string_view text) {
  for (size_t bytes = std::min<size_t>(text.size(), 3); bytes > 0; --bytes) {
    const std::string_view tail = text.substr(text.size() - bytes);
    // Unless it begins a character that more of the usual bytes, or of the largest, complete.
    for (const char next : {'\x80', '\xBF'}) {
      const std::string longer = std::string(tail) + std::string(3, next);
      const bool begins = utf8_char(tail, 0).code < 0 && utf8_char(longer, 0).bytes > bytes;
      if (begins) return bytes;
    }
  }
  return 0;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t end = valid_end(text, at);
    out.append(text.substr(at, end - at));
    at = end;
    if (at < text.size()) {
      out.append("\xEF\xBF\xBD");
      ++at;
    }
  }
  return out;
}

std::string printable(std::string_view text, std::string_view kept) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    const std::string_view bytes = text.substr(at, c.bytes);
    at += c.bytes;
    if (is_printable(c.code) || kept.find(bytes) != std::string_view::npos) {
      out += bytes;
    } else {
      out += escaped(c.code, bytes[0]);
    }
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  check(text.size() < size_t{1} << 30, "[text] expected less than a gigabyte, got ", text.size(),
        " bytes");
  const std::string_view first = text.substr(0, utf8_char(text, 0).bytes);
  // A Σ looks at what stands before it, the first character too.
  return title_case(first) + lower_case(text).substr(lower_case(first).size());
}

std::string nfc(std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t end = valid_end(text, at);
    append_nfc(text.substr(at, end - at), out);
    at = end;
    if (at < text.size()) out.push_back(text[at++]);
  }
  return out;
}

}  // namespace regla
