#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "core/parallel.h"
#include "storage/sha256.h"
#include "tests/catch.h"
#include "tests/text/random_texts.h"
#include "tests/text/support.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/unpack.h"

// The tokenizer of GPT-NeoX and Pythia, as it is published.
using namespace regla;
using Ids = std::vector<int32_t>;
namespace fs = std::filesystem;

namespace {

std::string tokenizer_path() { return test::data_folder() + "/tokenizer/20B_tokenizer.json"; }

/// The tokenizer; where there is none, the test case is skipped.
std::unique_ptr<Tokenizer> neox() {
  if (!test::data_folder().empty()) return load_tokenizer(tokenizer_path());
  test::skip("REGLA_DATA is unset");
  return nullptr;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// What is left of a text: form C, with U+FFFD for each byte that is not UTF-8.
std::string normal(std::string_view text) { return nfc(replace_invalid_utf8(text)); }

/// The text in parts of a megabyte that end at line ends.
std::vector<std::string_view> parts_of(std::string_view text) {
  constexpr size_t kPart = 1 << 20;
  std::vector<std::string_view> parts;
  while (text.size() > kPart) {
    const size_t end = std::min(text.find('\n', kPart), text.size() - 1) + 1;
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  parts.push_back(text);
  return parts;
}

/// How many parts do not come back from their ids.
int64_t count_lost(const Tokenizer& tokenizer, const std::vector<std::string_view>& parts) {
  std::vector<int64_t> lost(parts.size());
  parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      lost[i] = tokenizer.decode(tokenizer.encode(parts[i])) != normal(parts[i]);
    }
  });
  int64_t sum = 0;
  for (const int64_t one : lost) sum += one;
  return sum;
}

std::string repeated(std::string_view text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("the GPT-NeoX tokenizer gives the ids it is published with", "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  CHECK(tokenizer->vocab_size() == 50277);
  CHECK(tokenizer->end_of_text() == 0);
  const std::string separator = "\n__ggml_vocab_test__\n";
  const std::string folder = test::data_folder() + "/tokenizer/";
  std::string texts = read(folder + "vectors.inp");
  REQUIRE_FALSE(texts.empty());
  std::vector<std::string> lines;
  std::istringstream file(read(folder + "vectors.out"));
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  lines.emplace_back();  // of the empty text behind the last separator
  int vectors = 0;
  for (const std::string& line : lines) {
    const size_t end = texts.find(separator);
    const std::string text = texts.substr(0, end);
    texts = end == std::string::npos ? "" : texts.substr(end + separator.size());
    std::istringstream numbers(line);
    const Ids expected(std::istream_iterator<int32_t>(numbers), {});
    CAPTURE(vectors, text);
    CHECK(tokenizer->encode(text) == expected);
    ++vectors;
  }
  CHECK(texts.empty());
  CHECK(vectors == 47);
  CHECK(tokenizer_from_json(tokenizer->to_json())->to_json() == tokenizer->to_json());
}

TEST_CASE("all text there is comes back from its ids in normalisation form C", "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  int64_t files = 0, bytes = 0;
  for (const char* folder : {"wikitext-2", "wikitext-103", "wiki-2015", "eval"}) {
    for (const auto& entry : fs::recursive_directory_iterator(
             test::data_folder() + "/" + folder, fs::directory_options::follow_directory_symlink)) {
      if (!entry.is_regular_file()) continue;
      const std::string path = entry.path().string();
      const std::string text = unpack(read_stored(path), path);
      CAPTURE(path);
      CHECK(count_lost(*tokenizer, parts_of(text)) == 0);
      ++files;
      bytes += static_cast<int64_t>(text.size());
    }
  }
  CHECK(files >= 17);
  CHECK(bytes > 150'000'000);
}

TEST_CASE("text of every kind comes back from its ids, and what is no UTF-8 is counted",
          "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  test::RandomTexts texts;
  int64_t lost = 0, changed = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = texts.next();
    lost += tokenizer->decode(tokenizer->encode(text)) != nfc(text);
    lost += tokenizer->decode(tokenizer->encode_with_specials(text)) != nfc(text);
    changed += nfc(text) != text;
  }
  CHECK(lost == 0);
  CHECK(changed > 1000);
  // Bytes that are not UTF-8 between, before and behind characters, and parts of characters.
  int64_t invalid = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    std::string text = texts.next();
    text.insert(seed % (text.size() + 1), test::random_bytes(1 + seed % 7, seed));
    const std::string back = tokenizer->decode(tokenizer->encode(text));
    REQUIRE(back == normal(text));
    const int64_t bytes = count_invalid_utf8(text);
    int64_t marks = 0;
    for (size_t at = 0; (at = back.find("\xEF\xBF\xBD", at)) != back.npos; at += 3) ++marks;
    for (size_t at = 0; (at = text.find("\xEF\xBF\xBD", at)) != text.npos; at += 3) --marks;
    REQUIRE(marks == bytes);
    invalid += bytes;
  }
  CHECK(invalid > 500);
}

TEST_CASE(
    "added tokens are found at their stage of normalisation, runs of spaces the longest first",
    "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  const auto with = [&](std::string_view text) { return tokenizer->encode_with_specials(text); };
  CHECK(with("<|endoftext|><|padding|>") == Ids{0, 1});
  CHECK(tokenizer->decode(Ids{0, 1}) == "<|endoftext|><|padding|>");
  // The longest run of spaces is 24, with the first of these ids.
  for (int32_t spaces = 2; spaces <= 24; ++spaces) {
    CHECK(tokenizer->encode(std::string(static_cast<size_t>(spaces), ' ')) ==
          Ids{50254 + 24 - spaces});
  }
  CHECK(tokenizer->encode(std::string(50, ' ')) == Ids{50254, 50254, 50276});
  CHECK(tokenizer->encode(std::string(25, ' ')) == Ids{50254, tokenizer->encode(" ")[0]});
  // A mark behind <|endoftext|> does not join its last character: the token is found before.
  CHECK(with("<|endoftext|>\xCC\xB8")[0] == 0);
  CHECK(tokenizer->decode(with("<|endoftext|>\xCC\xB8")) == "<|endoftext|>\xCC\xB8");
  CHECK(tokenizer->decode(tokenizer->encode("<|endoftext|>\xCC\xB8")) ==
        "<|endoftext|\xE2\x89\xAF");  // NOT GREATER-THAN
}

TEST_CASE("the ids of 100,000 random texts are those of the package tokenizers", "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  std::ifstream record(std::string(REGLA_SOURCE_DIR) + "/tests/text/tokenizers_ids.txt");
  std::string line;
  REQUIRE(std::getline(record, line));  // versions
  test::RandomTexts texts;
  int blocks = 0;
  for (; std::getline(record, line); ++blocks) {
    std::string ids;
    for (int i = 0; i < 1000; ++i) {
      std::string one;
      for (const int32_t id : tokenizer->encode_with_specials(texts.next())) {
        one += (one.empty() ? "" : " ") + std::to_string(id);
      }
      ids += one + "\n";
    }
    CAPTURE(blocks);
    CHECK(sha256(ids).substr(0, 16) == line);
  }
  CHECK(blocks == 100);
}

// Whatever takes the square of these lengths does not end here.
TEST_CASE("a word of megabytes is encoded like any other", "[text][data]") {
  const auto tokenizer = neox();
  if (!tokenizer) return;
  constexpr size_t kMany = 1 << 20;
  for (const std::string_view unit :
       {"a", "ab", "\xE4\xB8\xAD", "7", "=", " ", "\n", "\r\n", " \n", "\xF0\x9F\x91\x8D", "'",
        "<|endoftext|", "\xFF", "\xCC\x81",  // acute
        "\xCC\x81\xCC\xA3",                  // acute, then the dot below, which goes before it
        "\xE0\xBD\xB3\xE0\xBD\xB1",          // a vowel of two marks, of which another goes between
        "\xE1\x84\x80\xE1\x85\xA1"}) {       // Hangul in parts
    const std::string text = "e" + repeated(unit, kMany / unit.size());
    CAPTURE(unit);
    CHECK(tokenizer->decode(tokenizer->encode(text)) == normal(text));
  }
}
