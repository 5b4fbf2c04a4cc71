#include "text/corpus.h"

#include <lzma.h>
#include <sys/stat.h>
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

TEST_CASE("how a file is packed is told by its bytes, not by its name", "[text]") {
  const test::TextFolder folder;
  const std::string text = "some text\nof two lines\n";
  const std::string xz = pack_xz(text), gz = pack_gzip(text, folder.path("packed"));
  for (const char* name : {"a.train.raw", "a.train.raw.gz", "a.train.raw.xz"}) {
    for (const std::string& packed : {xz, gz}) {
      CAPTURE(name);
      const test::TextFolder data;
      data.add(name, packed);
      CHECK(Corpus::open(data.path()).read(Split::Train) == text);
    }
  }
}

TEST_CASE("gzip may be padded with zeros, as tapes do", "[text]") {
  const test::TextFolder folder;
  const std::string gz = pack_gzip("some text\n", folder.path("packed"));
  for (const std::string& padding : {std::string(1, '\0'), std::string(10240, '\0')}) {
    folder.add("a.train.raw.gz", gz + padding);
    CHECK(Corpus::open(folder.path()).read(Split::Train) == "some text\n");
    folder.add("a.train.raw.gz", gz + gz + padding);
    CHECK(Corpus::open(folder.path()).read(Split::Train) == "some text\nsome text\n");
  }
  for (const std::string& broken : {gz + std::string(9, '\0') + "x", gz + "\x1F",
                                    gz + gz.substr(0, gz.size() - 1), gz.substr(0, 2)}) {
    folder.add("a.train.raw.gz", broken);
    CHECK(contains(test::error_of([&] { Corpus::open(folder.path()).read(Split::Train); }),
                   "corrupt or incomplete"));
  }
}

TEST_CASE("what is no text is refused with the command that makes it one", "[text]") {
  const test::TextFolder folder;
  const std::string text = "a line of text\n";
  std::string wide;
  for (const char c : text) wide += {c, '\0'};
  const auto error_for = [&](const std::string& bytes) {
    const Corpus corpus = Corpus::open(folder.add("x.train.txt", bytes));
    const std::string error = test::error_of([&] { corpus.stored(Split::Train); });
    CHECK(error == test::error_of([&] { corpus.read(Split::Train); }));
    return error;
  };
  const std::string in = folder.path("x.train.txt"), out = folder.path("x.train.plain.txt");
  CHECK(error_for("\xFF\xFE" + wide) == "[corpus] expected text in UTF-8, got UTF-16 in " + in +
                                            "; make it text with: iconv -f UTF-16 -t UTF-8 < " +
                                            in + " > " + out);
  CHECK(contains(error_for(wide), "iconv -f UTF-16LE -t UTF-8 < " + in));
  CHECK(contains(error_for("BZh91AY&SY\x27"), "got bzip2 in " + in));
  CHECK(contains(error_for("PK\x03\x04"), "make it text with: unzip " + in));
  // Packed twice, or something else that is packed: the first layer is named.
  const auto inside_error = [&](const std::string& inside) {
    const std::string path = folder.add("y.txt.gz", pack_gzip(inside, folder.path("packed")));
    return test::error_of([&] { Corpus::open(path).read(Split::Train); });
  };
  const std::string packed = folder.path("y.txt.gz");
  CHECK(inside_error(pack_gzip(text, folder.path("packed"))) ==
        "[corpus] expected text in UTF-8, got gzip packed with gzip in " + packed +
            "; unpack it with: gunzip < " + packed + " > " + folder.path("y.txt"));
  CHECK(contains(inside_error(pack_xz(text)), "got xz packed with gzip"));
  CHECK(contains(inside_error("\xFF\xFE" + wide), "got UTF-16 packed with gzip"));
}

TEST_CASE("a byte order mark of UTF-8 is no part of the text", "[text]") {
  const test::TextFolder folder;
  const std::string text = " = One = \n\n text \n\n = Two = \n\n text \n", mark = "\xEF\xBB\xBF";
  folder.add("a.train.txt", mark + text);
  folder.add("a.test.txt.xz", pack_xz(mark + text));
  folder.add("a.valid.txt", mark);
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(corpus.read(Split::Train) == text);
  CHECK(corpus.read(Split::Test) == text);
  CHECK(contains(test::error_of([&] { corpus.read(Split::Valid); }), "empty file"));
}

TEST_CASE("other names of splits, and files that are none", "[text]") {
  const test::TextFolder folder;
  folder.add("a.train.txt", "train");
  folder.add("val.txt", "valid");
  folder.add("._a.train.txt", "of macOS");
  folder.add(".a.test.txt", "hidden");
  std::filesystem::create_symlink("nowhere", folder.path(".#a.train.txt"));  // a lock of Emacs
  folder.add("a.train.txt.bz2", "BZh91AY&SY");  // what bunzip2 --keep leaves
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(corpus.read(Split::Train) == "train");
  CHECK(corpus.read(Split::Valid) == "valid");
  CHECK_FALSE(corpus.has(Split::Test));
  folder.add("valid.txt", "two");
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path()); }),
                 "got " + folder.path("val.txt") + " and " + folder.path("valid.txt")));
}

TEST_CASE("a split in something that cannot be read is an error, not absent", "[text]") {
  const test::TextFolder folder;
  folder.add("train.txt", "text");
  std::filesystem::create_directory(folder.path("valid.txt"));
  folder.add("test.raw.zst", "\x28\xB5\x2F\xFD\x24");
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(test::error_of([&] { corpus.read(Split::Valid); }) ==
        "[corpus] expected a text file, got " + folder.path("valid.txt") + ", a folder");
  CHECK(contains(test::error_of([&] { corpus.read(Split::Test); }),
                 "unzstd < " + folder.path("test.raw.zst") + " > " + folder.path("test.raw")));
}

TEST_CASE("links lead to texts or are refused", "[text]") {
  const test::TextFolder folder, elsewhere;
  std::filesystem::create_symlink(elsewhere.add("book", "text"), folder.path("train.txt"));
  CHECK(Corpus::open(folder.path()).read(Split::Train) == "text");
  const std::string link = folder.path("valid.txt");
  std::filesystem::create_symlink("nowhere", link);
  const std::string end = link + ", a link to nothing";
  CHECK(test::error_of([&] { Corpus::open(folder.path()); }) ==
        "[corpus] expected a text file, got " + end);
  CHECK(test::error_of([&] { Corpus::open(link); }) ==
        "[corpus] expected a folder or a text file, got " + end);
  std::filesystem::remove(link);
  std::filesystem::create_symlink("valid.txt", link);  // to itself
  CHECK(contains(test::error_of([&] { Corpus::open(folder.path()); }), link + ", "));
}

TEST_CASE("pipes, devices and sockets are refused without being opened", "[text]") {
  const test::TextFolder folder;
  const std::string pipe = folder.path("train.txt");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const std::string end = pipe + ", a pipe; write its text to a file first";
  CHECK(test::error_of([&] { Corpus::open(pipe); }) ==
        "[corpus] expected a folder or a text file, got " + end);
  const Corpus corpus = Corpus::open(folder.path());
  CHECK(test::error_of([&] { corpus.stored(Split::Train); }) ==
        "[corpus] expected a text file, got " + end);
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/tty"}) {
    CHECK(test::error_of([&] { Corpus::open(device); }) ==
          "[corpus] expected a folder or a text file, got " + std::string(device) + ", a device");
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
  CHECK(corpus.stored(Split::Valid).hash() != corpus.stored(Split::Test).hash());
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

TEST_CASE("lines may end with CR LF", "[text]") {
  std::string lf;
  for (int i = 0; i < 200; ++i)
    lf += "\n = Title = \n \n a line = of words \n \n = = Part = = \n\n";
  std::string crlf;
  for (const char c : lf) crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
  const auto parts = documents(crlf);
  REQUIRE(documents(lf).size() == 200);
  REQUIRE(parts.size() == 200);
  for (const std::string_view part : parts)
    CHECK(part.substr(part.find('=')).starts_with("= Title = \r\n"));
  std::string joined;
  for (const std::string_view part : parts) joined += part;
  CHECK(joined == crlf);  // every byte is kept, and counts
  const TextCounts counts = count_text(crlf), of_lf = count_text(lf);
  CHECK(counts.words == of_lf.words);
  CHECK(counts.line_ends == of_lf.line_ends);
  CHECK(counts.bytes == of_lf.bytes + of_lf.line_ends);
  CHECK(part_of(crlf, Split::Train).ends_with("\r\n"));
  CHECK(documents(" = T = \r\n \r\n x").size() == 1);
  CHECK(documents("x\r\n\r\n = T = \r").size() == 2);  // the end of a file without its last LF
  CHECK(documents("x\n\n = T = \r \n\n y").size() == 1);
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
