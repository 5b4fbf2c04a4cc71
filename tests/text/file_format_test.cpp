#include "text/file_format.h"

#include <vector>

#include "tests/catch.h"
#include "tests/text/support.h"
#include "text/unicode.h"

using namespace regla;
using namespace std::string_literals;
using Kind = FileFormat::Kind;

namespace {

const std::vector<std::string> kTexts = {"It was 1901, and the lazy dog slept.\n",
                                         "Élève à l'école, où ça déçoit.\n",
                                         "Съешь ещё этих мягких французских булок.\n",
                                         "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.\n",
                                         "一个人在北京的大学里学习，他每天都工作。　　第二天。\n",
                                         "いろはにほへと　ちりぬるを。日本語の例。\n",
                                         "मनुष्य स्वतन्त्र पैदा होते हैं और गरिमा\n",
                                         "يولد جميع الناس أحرارا متساوين\n",
                                         "모든 인간은 태어날 때부터 자유로우며 존엄과\n",
                                         "hi 😀 there 🎉\n",
                                         "GPT 语言模型 is a 模型 in 2020 年\n"};

// A text of UTF-8 in units of 2 or 4 bytes.
std::string widened(const std::string& text, size_t width, bool big_endian) {
  std::string out;
  const auto put = [&](uint32_t unit) {
    for (size_t i = 0; i < width; ++i) {
      out.push_back(static_cast<char>(unit >> 8 * (big_endian ? width - 1 - i : i)));
    }
  };
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_char(text, at);
    const auto code = static_cast<uint32_t>(c.code);
    at += c.bytes;
    if (width == 2 && code >= 0x10000) {
      put(0xD800 + ((code - 0x10000) >> 10));
      put(0xDC00 + (code & 0x3FF));
    } else {
      put(code);
    }
  }
  return out;
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

std::string tar_header(bool ustar) {
  std::string block(512, '\0');
  block.replace(0, 9, "train.txt");
  block.replace(100, 7, "0000644");
  if (ustar) block.replace(257, 5, "ustar");
  int sum = 8 * ' ';
  for (const char c : block) sum += static_cast<unsigned char>(c);
  for (int digit = 5; digit >= 0; --digit, sum /= 8) {
    block[148 + static_cast<size_t>(digit)] = static_cast<char>('0' + sum % 8);
  }
  return block;
}

}  // namespace

TEST_CASE("UTF-16 and UTF-32 are recognised in both byte orders, marked or not", "[text]") {
  for (const size_t width : {size_t{2}, size_t{4}}) {
    for (const bool big : {false, true}) {
      const std::string name = width == 2 ? "UTF-16" : "UTF-32";
      for (const std::string& text : kTexts) {
        for (const int times : {1, 10, 3000}) {
          CAPTURE(name, big, text, times);
          const std::string plain = repeated(text, times), wide = widened(plain, width, big);
          CHECK(format_of(plain).name == "text");
          CHECK(format_of(wide).name == name);
          CHECK(format_of(wide).command == "iconv -f " + name + (big ? "BE" : "LE") + " -t UTF-8");
          const FileFormat marked = format_of(widened("\uFEFF" + plain, width, big));
          CHECK(marked.name == name);
          CHECK(marked.command == "iconv -f " + name + " -t UTF-8");
        }
      }
    }
  }
}

TEST_CASE("texts in single bytes stay texts", "[text]") {
  for (const std::string& text :
       {""s, "\n"s, "a"s, "\0"s, std::string(5000, '\0'),
        "\xC9l\xE8ve \xE0 l'\xE9"
        "cole\n"s,
        "\xD3\xDF\xC5\xDB\xD8 \xC5\xDD\xA3\n"s, "a list\0of names\0that end\0with zeros\0\n"s,
        "one\n\0two \0three\n\0four \0"s, "\xEF\xBB\xBF marked\n"s, "\x1Bnot gzip"s,
        "BZh9 notes\n"s, "PK is not enough\n"s, "]\0\0"s, repeated("x\ty\0\n"s, 100),
        test::random_bytes(100000, 5), test::random_bytes(40, 6)}) {
    CAPTURE(text.substr(0, 40));
    CHECK(format_of(text).kind == Kind::Text);
  }
}

TEST_CASE("packed files are recognised by their signatures", "[text]") {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"gzip", "\x1F\x8B\x08"},
      {"xz", "\xFD\x37zXZ\0"s},
      {"bzip2", "BZh91AY&SY\x27\xD5"},
      {"bzip2", "BZh9\x17\x72\x45\x38\x50\x90"},  // of nothing
      {"zstd", "\x28\xB5\x2F\xFD\x24"},
      {"zstd", "\x50\x2A\x4D\x18\x04"},  // begins with a frame without data
      {"lz4", "\x04\x22\x4D\x18\x64"},
      {"lzma", "\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0"s},
      {"lzip", "LZIP\x01\x0C"},
      {"lzop", "\x89LZO\0\r\n\x1A\n"s},
      {"compress (.Z)", "\x1F\x9D\x90"},
      {"zip", "PK\x03\x04\n"},
      {"zip", "PK\x05\x06"},
      {"7z", "7z\xBC\xAF\x27\x1C"},
      {"rar", "Rar!\x1A\x07\x01"},
      {"PDF", "%PDF-1.7\n"},
      {"tar", tar_header(true)},
      {"tar", tar_header(false)}};
  for (const auto& [name, bytes] : files) {
    CAPTURE(name);
    CHECK(format_of(bytes).name == name);
    CHECK(format_of(bytes).kind != Kind::Text);
    CHECK(format_of(bytes.substr(0, 2)).kind == (name == "gzip"            ? Kind::Gzip
                                                 : name == "compress (.Z)" ? Kind::Filtered
                                                                           : Kind::Text));
  }
  std::string wrong_sum = tar_header(true);
  wrong_sum[0] = 'T';
  CHECK(format_of(wrong_sum).kind == Kind::Text);
}

TEST_CASE("the command that makes text of a file can be pasted", "[text]") {
  const FileFormat bzip2 = format_of("BZh91AY&SY"), zip = format_of("PK\x03\x04"),
                   wide = format_of("\xFF\xFE");
  CHECK(command_for(bzip2, "a/train.txt.bz2") == "bunzip2 < a/train.txt.bz2 > a/train.txt");
  CHECK(command_for(bzip2, "a.b/train") == "bunzip2 < a.b/train > a.b/train.plain.txt");
  CHECK(command_for(zip, "texts.zip") == "unzip texts.zip");
  CHECK(command_for(wide, "book.txt") == "iconv -f UTF-16 -t UTF-8 < book.txt > book.plain.txt");
  CHECK(command_for(zip, "it's \xC3\xBC.zip") == "unzip 'it'\\''s \xC3\xBC.zip'");
}
