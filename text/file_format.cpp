#include "text/file_format.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>

#include "text/unicode.h"

namespace regla {
namespace {

using Kind = FileFormat::Kind;
using namespace std::string_view_literals;

constexpr size_t kSample = size_t{1} << 16;

constexpr std::string_view kPackedEndings[] = {".gz", ".xz",  ".bz2", ".zst",  ".lz4",
                                               ".lz", ".lzo", ".Z",   ".lzma", ".zip",
                                               ".7z", ".rar", ".tar"};

struct Signature {
  std::string_view bytes;
  FileFormat format;
};

constexpr Signature kSignatures[] = {
    {"\x1F\x8B"sv, {Kind::Gzip, "gzip", "gunzip"}},
    {"\xFD\x37zXZ\0"sv, {Kind::Xz, "xz", "unxz"}},
    {"\x1F\x9D"sv, {Kind::Filtered, "compress (.Z)", "gunzip"}},
    {"\x28\xB5\x2F\xFD"sv, {Kind::Filtered, "zstd", "unzstd"}},
    {"\x04\x22\x4D\x18"sv, {Kind::Filtered, "lz4", "unlz4"}},
    {"\x02\x21\x4C\x18"sv, {Kind::Filtered, "lz4", "unlz4"}},
    {"LZIP\x01"sv, {Kind::Filtered, "lzip", "lzip -dc"}},
    {"\x89LZO\0\x0D\x0A\x1A\x0A"sv, {Kind::Filtered, "lzop", "lzop -dc"}},
    {"%PDF-"sv, {Kind::Filtered, "PDF", "pdftotext - -"}},
    {"PK\x03\x04"sv, {Kind::Archive, "zip", "unzip"}},
    {"PK\x05\x06"sv, {Kind::Archive, "zip", "unzip"}},
    {"PK\x07\x08"sv, {Kind::Archive, "zip", "unzip"}},
    {"7z\xBC\xAF\x27\x1C"sv, {Kind::Archive, "7z", "7z x"}},
    {"Rar!\x1A\x07"sv, {Kind::Archive, "rar", "unrar x"}},
};

// "BZh", the size of a block as a digit, and the mark of a block or of the end.
bool is_bzip2(std::string_view bytes) {
  return bytes.size() >= 10 && bytes.starts_with("BZh") && bytes[3] >= '1' && bytes[3] <= '9' &&
         (bytes.substr(4).starts_with("1AY&SY") ||
          bytes.substr(4).starts_with("\x17\x72\x45\x38\x50\x90"));
}

// Properties, a dictionary's size, and an unknown length, as lzma and xz write it.
bool is_lzma(std::string_view bytes) {
  return bytes.starts_with("\x5D\0\0"sv) && bytes.size() >= 13 &&
         bytes.substr(5, 8) == "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
}

// Frames of zstd that hold no data may come first.
bool is_skippable_zstd(std::string_view bytes) {
  return bytes.size() >= 4 && (bytes[0] & 0xF0) == 0x50 && bytes.substr(1, 3) == "\x2A\x4D\x18";
}

// A tar begins with a block of 512 bytes that holds its own sum, taken with blanks in its place.
bool is_tar(std::string_view bytes) {
  constexpr size_t kBlock = 512, kSum = 148, kDigits = 8;
  if (bytes.size() < kBlock) return false;
  int64_t sum = 0, stated = 0;
  bool any = false;
  for (size_t i = 0; i < kBlock; ++i) {
    const bool inside = i >= kSum && i < kSum + kDigits;
    sum += inside ? ' ' : static_cast<unsigned char>(bytes[i]);
    if (inside && bytes[i] >= '0' && bytes[i] <= '7') {
      stated = stated * 8 + (bytes[i] - '0');
      any = true;
    }
  }
  return any && sum == stated;
}

// UTF-16 or UTF-32 in one byte order.
struct WideForm {
  size_t width;
  bool big_endian;
  std::string_view mark;
  std::string_view name;
  std::string_view with_mark, without_mark;  // the commands
};

// UTF-32 first: its mark begins with that of UTF-16.
constexpr WideForm kWideForms[] = {
    {4, false, "\xFF\xFE\0\0"sv, "UTF-32", "iconv -f UTF-32 -t UTF-8",
     "iconv -f UTF-32LE -t UTF-8"},
    {4, true, "\0\0\xFE\xFF"sv, "UTF-32", "iconv -f UTF-32 -t UTF-8", "iconv -f UTF-32BE -t UTF-8"},
    {2, false, "\xFF\xFE"sv, "UTF-16", "iconv -f UTF-16 -t UTF-8", "iconv -f UTF-16LE -t UTF-8"},
    {2, true, "\xFE\xFF"sv, "UTF-16", "iconv -f UTF-16 -t UTF-8", "iconv -f UTF-16BE -t UTF-8"},
};

uint32_t unit_at(std::string_view bytes, size_t at, const WideForm& form) {
  uint32_t unit = 0;
  for (size_t i = 0; i < form.width; ++i) {
    const size_t from = form.big_endian ? i : form.width - 1 - i;
    unit = unit << 8 | static_cast<unsigned char>(bytes[at + from]);
  }
  return unit;
}

// Whether the sample, read in this form, is text with blanks or line ends in it. One character in
// a thousand may be none, such as a form feed or half of a pair where the sample ends.
bool reads_as(std::string_view sample, const WideForm& form) {
  int64_t characters = 0, wrong = 0, blanks = 0;
  for (size_t at = 0; at + form.width <= sample.size(); at += form.width) {
    uint32_t code = unit_at(sample, at, form);
    if (form.width == 2 && (code & 0xFC00) == 0xD800 && at + 4 <= sample.size()) {
      const uint32_t low = unit_at(sample, at + 2, form);
      if ((low & 0xFC00) == 0xDC00) {
        code = 0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF);
        at += 2;
      }
    }
    ++characters;
    const bool blank = code == ' ' || code == '\n' || code == '\r' || code == '\t';
    blanks += blank;
    wrong += !blank && (code > 0x10FFFF || !is_visible(static_cast<int32_t>(code)));
  }
  return blanks > 0 && wrong * 1000 <= characters;
}

// No text in UTF-8, nor in any other form of single bytes, has so many zeros, or so many control
// characters and invalid bytes.
bool is_strange_utf8(std::string_view sample) {
  const auto size = static_cast<int64_t>(sample.size());
  int64_t zeros = 0, strange = count_invalid_utf8(sample);
  for (const char c : sample) {
    zeros += c == '\0';
    strange += c > '\0' && c < ' ' && c != '\n' && c != '\r';
  }
  return zeros > 0 && (zeros * 10 >= size * 3 || strange * 10 >= size);
}

// The name as one word of a shell's command.
std::string for_shell(const std::string& name) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@%=";
  if (name.find_first_not_of(kPlain) == std::string::npos) return name;
  std::string out = "'";
  for (const char c : name) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

// A name for the text of a file: without the ending of a packed one, else a new one beside it.
std::string plain_name(const std::string& path) {
  const std::filesystem::path file(path);
  if (const size_t ending = packed_ending(path); ending > 0) {
    return path.substr(0, path.size() - ending);
  }
  return (file.parent_path() / (file.stem().string() + ".plain.txt")).string();
}

}  // namespace

size_t packed_ending(std::string_view name) {
  for (const std::string_view ending : kPackedEndings) {
    if (name.size() > ending.size() && name.ends_with(ending)) return ending.size();
  }
  return 0;
}

FileFormat format_of(std::string_view bytes) {
  for (const WideForm& form : kWideForms) {
    if (bytes.starts_with(form.mark)) return {Kind::Filtered, form.name, form.with_mark};
  }
  for (const Signature& signature : kSignatures) {
    if (bytes.starts_with(signature.bytes)) return signature.format;
  }
  if (is_bzip2(bytes)) return {Kind::Filtered, "bzip2", "bunzip2"};
  if (is_lzma(bytes)) return {Kind::Filtered, "lzma", "unlzma"};
  if (is_skippable_zstd(bytes)) return {Kind::Filtered, "zstd", "unzstd"};
  if (is_tar(bytes)) return {Kind::Archive, "tar", "tar -xf"};
  const std::string_view sample = bytes.substr(0, kSample);
  if (is_strange_utf8(sample)) {
    for (const WideForm& form : kWideForms) {
      if (reads_as(sample, form)) return {Kind::Filtered, form.name, form.without_mark};
    }
  }
  return {};
}

std::string command_for(const FileFormat& format, const std::string& path) {
  const std::string command(format.command);
  if (format.kind == Kind::Archive) return command + " " + for_shell(path);
  return command + " < " + for_shell(path) + " > " + for_shell(plain_name(path));
}

}  // namespace regla
