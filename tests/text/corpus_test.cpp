#include "text/corpus.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>

#include "tests/catch.h"
#include "tests/text/support.h"

using namespace regla;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string pack_xz(const std::string& text) {
  std::string out(text.size() + 1000, '\0');
  size_t used = 0;
  REQUIRE(lzma_easy_buffer_encode(
              6, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
              text.size(), reinterpret_cast<uint8_t*>(out.data()), &used, out.size()) == LZMA_OK);
  out.resize(used);
  return out;
}

std::string pack_gzip(const std::string& text, const std::string& path) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, text.data(), static_cast<unsigned>(text.size())) ==
          static_cast<int>(text.size()));
  REQUIRE(gzclose(file) == Z_OK);
  std::string out(std::filesystem::file_size(path), '\0');
  std::ifstream(path, std::ios::binary).read(out.data(), static_cast<std::streamsize>(out.size()));
  return out;
}

}  // namespace

TEST_CASE("a folder's files are found by their names", "[text]") {
  const test::TextFolder folder;
  folder.add("wiki.train.tokens", "train text");
  folder.add("test.txt", "test text");
  folder.add("a.b.validation.raw", "valid text");
  folder.add("README.md", "no");
  folder.add("train", "no");
  folder.add("wiki.train.tokens.bak", "no");
  folder.add("constrain.raw", "no");
  std::filesystem::create_directory(folder.path("x.test.txt"));
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(corpus.read(Split::Train) == "train text");
  CHECK(corpus.read(Split::Valid) == "valid text");
  CHECK(corpus.read(Split::Test) == "test text");
  CHECK(corpus.file(Split::Test) == folder.path("test.txt"));
}

TEST_CASE("the kind of the train split is the default", "[text]") {
  const test::TextFolder folder;
  folder.add("w.valid.raw", "valid raw");
  folder.add("w.valid.tokens", "valid tokens");
  folder.add("w.test.txt", "test txt");
  CHECK(Corpus::open(folder.path()).read(Split::Valid) == "valid tokens");  // no train split
  folder.add("w.train.raw", "train raw");
  const Corpus by_train = Corpus::open(folder.path());
  CHECK(by_train.read(Split::Valid) == "valid raw");
  CHECK(by_train.read(Split::Test) == "test txt");
  const Corpus tokens = Corpus::open(folder.path(), "tokens");
  CHECK(tokens.read(Split::Valid) == "valid tokens");
  CHECK_FALSE(tokens.has(Split::Train));
  CHECK_FALSE(tokens.has(Split::Test));
  CHECK(test::error_of([&] { tokens.read(Split::Train); }) ==
        "[corpus] expected a file for the train split in " + folder.path() +
            ", got none of the kind tokens");
  CHECK_THROWS_AS(Corpus::open(folder.path(), "text"), Error);
}

TEST_CASE("a corpus that cannot be used is refused in one line", "[text]") {
  const test::TextFolder folder;
  CHECK(test::error_of([&] { Corpus::open(folder.path("none")); }) ==
        "[corpus] expected a folder or a text file, got " + folder.path("none") +
            ", which does not exist");
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path()); }), "got none named"));
  folder.add("a.test.tokens", "");
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path(), "raw"); }),
                 "expected files of the kind raw"));
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path()).read(Split::Test); }),
                 "got the empty file " + folder.path("a.test.tokens")));
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path()).read(Split::Train); }),
                 "train split"));
  folder.add("b.test.tokens.xz", "");
  const std::string twice = test::error_of([&] { Corpus::open(folder.path()); });
  CHECK(contains(twice, folder.path("a.test.tokens") + " and " + folder.path("b.test.tokens.xz")));
}

TEST_CASE("packed files are unpacked", "[text]") {
  const test::TextFolder folder;
  const std::string text = test::random_bytes(100000, 5) + std::string(3000000, 'x');
  const std::string xz = pack_xz(text), gz = pack_gzip(text, folder.path("packed"));
  folder.add("a.train.raw.xz", xz + pack_xz("tail"));  // several streams are one file
  folder.add("a.valid.raw.gz", gz + pack_gzip("tail", folder.path("packed")));
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(corpus.read(Split::Train) == text + "tail");
  CHECK(corpus.read(Split::Valid) == text + "tail");
  for (const std::string& broken :
       {std::string(), std::string("plain text"), xz.substr(0, xz.size() / 2), xz + "rubbish"}) {
    const std::string path = folder.add("a.train.raw.xz", broken);
    CHECK(contains(test::error_of([&] { corpus.read(Split::Train); }),
                   path + ", got data that is corrupt or incomplete"));
  }
  std::string flipped = gz;
  flipped[gz.size() / 2] = static_cast<char>(~flipped[gz.size() / 2]);
  for (const std::string& broken : {std::string(), std::string("plain text"),
                                    gz.substr(0, gz.size() - 1), gz + "rubbish", flipped}) {
    const std::string path = folder.add("a.valid.raw.gz", broken);
    CHECK(contains(test::error_of([&] { corpus.read(Split::Valid); }),
                   path + ", got data that is corrupt or incomplete"));
  }
}

TEST_CASE("one file is split 90/5/5 at line ends", "[text]") {
  const test::TextFolder folder;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::to_string(i) + " line\n";
  const Corpus corpus = Corpus::open(folder.add("book.txt", text));
  const std::string train = corpus.read(Split::Train), valid = corpus.read(Split::Valid),
                    rest = corpus.read(Split::Test);
  CHECK(train + valid + rest == text);
  CHECK(train.back() == '\n');
  CHECK(valid.back() == '\n');
  CHECK(std::abs(static_cast<int64_t>(train.size() * 10) - static_cast<int64_t>(text.size() * 9)) <
        100);
  CHECK(std::abs(static_cast<int64_t>(valid.size() * 20) - static_cast<int64_t>(text.size())) <
        200);
  CHECK(corpus.content_hash(Split::Valid) != corpus.content_hash(Split::Test));
  const Corpus packed = Corpus::open(folder.add("book.xz", pack_xz(text)));
  CHECK(packed.read(Split::Valid) == valid);
  const Corpus line = Corpus::open(folder.add("line.txt", "no line end"));
  CHECK(line.read(Split::Train) == "no line end");
  CHECK(contains(test::error_of([&] { line.read(Split::Valid); }), "0 line ends"));
  CHECK_THROWS_AS(Corpus::open(folder.add("empty.txt", "")).read(Split::Train), Error);
}

TEST_CASE("parts begin where the header says", "[text]") {
  // Lines of 10 bytes: bytes 90 and 95 of 100 are in the last line.
  const std::string text =
      "123456789\n123456789\n123456789\n123456789\n123456789\n"
      "123456789\n123456789\n123456789\n123456789\n123456789\n";
  CHECK(part_of(text, Split::Train).size() == 90);
  CHECK(part_of(text, Split::Valid).size() == 10);
  CHECK(part_of(text, Split::Test).empty());
  CHECK(part_of("\n", Split::Train) == "\n");
  CHECK(part_of("", Split::Train).empty());
  CHECK(part_of("", Split::Test).empty());
}

TEST_CASE("documents begin at WikiText's titles", "[text]") {
  using Views = std::vector<std::string_view>;
  const std::string a = " \n = One = \n \n text \n \n = = Part = = \n \n more \n \n";
  const std::string b = " = Two = \n \n x = 5 \n = no title = \n \n = = no = \n \n";
  CHECK(documents(a + b) == Views{a, b});
  CHECK(documents("intro\n\n" + b) == Views{"intro\n\n", b});
  CHECK(documents("plain text\nwithout titles") == Views{"plain text\nwithout titles"});
  CHECK(documents(" = T = ") == Views{" = T = "});
  CHECK(documents(" = T = \n = U = \n").size() == 1);  // no blank line behind or before
  CHECK(documents("\n\n") == Views{"\n\n"});
  CHECK(documents("").empty());
}

TEST_CASE("texts are counted as perplexity per word needs it", "[text]") {
  CHECK(count_text("") == TextCounts{0, 0, 0, 0});
  CHECK(count_text(" a  bc\n\td \n") == TextCounts{11, 3, 2, 0});
  CHECK(count_text("x\xFFy\nz") == TextCounts{5, 2, 1, 1});
}

TEST_CASE("WikiText-2 has the published counts", "[text][data]") {
  if (test::data_folder().empty()) {
    test::skip("REGLA_DATA is unset");
    return;
  }
  const Corpus corpus = Corpus::open(test::data_folder() + "/wikitext-2");
  const auto measure = [&](Split split, size_t articles, int64_t words) {
    const std::string text = corpus.read(split);
    const std::vector<std::string_view> parts = documents(text);
    CHECK(parts.size() == articles);
    std::string joined;
    for (const std::string_view part : parts) joined += part;
    CHECK(joined == text);
    const TextCounts counts = count_text(text);
    CHECK(counts.words + counts.line_ends == words);
    CHECK(counts.invalid_bytes == 0);
  };
  measure(Split::Train, 600, 2088628);
  measure(Split::Valid, 60, 217646);
  measure(Split::Test, 60, 245569);
  CHECK(corpus.file(Split::Test).ends_with("wiki.test.tokens"));
  CHECK(Corpus::open(test::data_folder() + "/wikitext-2", "raw").has(Split::Train) == false);
}
