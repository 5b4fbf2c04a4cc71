#include "text/token_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "core/hash.h"
#include "storage/files.h"
#include "tests/catch.h"
#include "tests/text/support.h"
#include "text/bpe_trainer.h"
#include "text/byte_tokenizer.h"

using namespace regla;
namespace fs = std::filesystem;

namespace {

// Sets an environment variable for the length of a scope.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;
  ~Setting() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

std::vector<fs::path> files_in(const std::string& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path());
  return out;
}

std::vector<int32_t> ids_of(const TokenStream& stream) {
  return {stream.ids().begin(), stream.ids().end()};
}

/// Overwrites one byte of a file.
void damage(const fs::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(at);
  file.put('\x7E');
}

const std::string kText = " = A = \n \n one \n \n = B = \n \n two\xFF \n";

}  // namespace

TEST_CASE("a stream is the documents with their ends, and knows the text's counts", "[text]") {
  const auto bytes = byte_tokenizer();
  const TokenStream stream = tokenize_text(kText, *bytes);
  CHECK(stream.ids().size() == kText.size() + 2);
  CHECK(stream.ids().back() == 256);
  CHECK(std::count(stream.ids().begin(), stream.ids().end(), 256) == 2);
  CHECK(stream.counts() == count_text(kText));
  CHECK(stream.counts().invalid_bytes == 1);
}

TEST_CASE("tokens are cached by text and tokenizer", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path("new/folder"));
  data.add("train.txt", kText);
  const Corpus corpus = Corpus::open(data.path());
  const auto bytes = byte_tokenizer();
  const TokenStream first = tokenize_split(corpus, Split::Train, *bytes);
  CHECK(files_in(cache_folder()).size() == 1);
  const auto written = fs::last_write_time(files_in(cache_folder())[0]);
  const TokenStream second = tokenize_split(corpus, Split::Train, *bytes);
  CHECK(ids_of(first) == ids_of(tokenize_text(kText, *bytes)));
  CHECK(ids_of(second) == ids_of(first));
  CHECK(second.counts() == count_text(kText));
  CHECK(fs::last_write_time(files_in(cache_folder())[0]) == written);

  tokenize_split(corpus, Split::Train, *train_bpe(kText + kText, 270));
  CHECK(files_in(cache_folder()).size() == 2);
  data.add("train.txt", kText + "more");
  CHECK(tokenize_split(corpus, Split::Train, *bytes).ids().size() == kText.size() + 6);
  CHECK(files_in(cache_folder()).size() == 3);
}

TEST_CASE("a damaged cache is made again", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  data.add("train.txt", kText);
  const Corpus corpus = Corpus::open(data.path());
  const auto bytes = byte_tokenizer();
  const std::vector<int32_t> expected = ids_of(tokenize_split(corpus, Split::Train, *bytes));
  const std::string name = files_in(cache.path())[0].filename().string();
  const auto size = fs::file_size(cache.path(name));
  for (const auto length : {size - 1, size - 4, size / 2, uintmax_t{79}, uintmax_t{0}}) {
    fs::resize_file(cache.path(name), length);
    CHECK(ids_of(tokenize_split(corpus, Split::Train, *bytes)) == expected);
    CHECK(fs::file_size(cache.path(name)) == size);
  }
  for (const std::streamoff at :
       {std::streamoff{0}, std::streamoff{9}, std::streamoff{34}, std::streamoff{50},
        std::streamoff{64}, std::streamoff{90}, static_cast<std::streamoff>(size) - 1}) {
    damage(cache.path(name), at);
    CHECK(ids_of(tokenize_split(corpus, Split::Train, *bytes)) == expected);
  }
  CHECK(files_in(cache.path()).size() == 1);
}

TEST_CASE("a file under another name finds the tokens of its text", "[text]") {
  const test::TextFolder cache, data;
  const Setting setting("REGLA_CACHE", cache.path());
  const auto bytes = byte_tokenizer();
  // The same text, packed and not; then the same bytes under names that promise something else.
  const std::string gzip(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\x57\x28\xcf\x2f\xca\x49\xe1"
      "\x02\x00\x2d\x3b\x08\xaf\x0c\x00\x00\x00",
      32);
  const std::string text = "hello world\n";
  const std::vector<int32_t> expected = ids_of(tokenize_text(text, *bytes));
  for (const char* name :
       {"train.raw.gz", "train.raw", "train.txt.gz", "train.tokens", "val.txt"}) {
    CAPTURE(name);
    const test::TextFolder folder;
    folder.add(name, gzip);
    const Split split = name[0] == 'v' ? Split::Valid : Split::Train;
    const TokenStream stream = tokenize_split(Corpus::open(folder.path()), split, *bytes);
    CHECK(ids_of(stream) == expected);
    CHECK(stream.counts() == count_text(text));
  }
  // A text that is cached is refused all the same under a name it does not go with.
  data.add("train.txt", text);
  tokenize_split(Corpus::open(data.path()), Split::Train, *bytes);
  learn_tokenizer(Corpus::open(data.path()), 257);
  const test::TextFolder other;
  other.add("train.txt.gz", text);
  const Corpus misnamed = Corpus::open(other.path());
  CHECK_THROWS_AS(tokenize_split(misnamed, Split::Train, *bytes), Error);
  CHECK_THROWS_AS(learn_tokenizer(misnamed, 257), Error);
}

TEST_CASE("a whole file and its parts do not share tokens", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  const auto bytes = byte_tokenizer();
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i) + " of some words\n";
  const std::string file = data.add("a.train.txt", text);
  for (int round = 0; round < 2; ++round) {
    const auto whole = tokenize_split(Corpus::open(data.path()), Split::Train, *bytes);
    const auto part = tokenize_split(Corpus::open(file), Split::Train, *bytes);
    CHECK(ids_of(whole) == ids_of(tokenize_text(text, *bytes)));
    CHECK(ids_of(part) == ids_of(tokenize_text(part_of(text, Split::Train), *bytes)));
    CHECK(learn_tokenizer(Corpus::open(data.path()), 280)->hash() == train_bpe(text, 280)->hash());
    CHECK(learn_tokenizer(Corpus::open(file), 280)->hash() ==
          train_bpe(part_of(text, Split::Train), 280)->hash());
  }
}

TEST_CASE("a cached tokenizer is used for what it was learnt from only", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  data.add("train.txt", kText + kText);
  const Corpus corpus = Corpus::open(data.path());
  learn_tokenizer(corpus, 262);
  const fs::path small = files_in(cache.path())[0];
  const std::string bytes = read_file(small);
  learn_tokenizer(corpus, 270);
  for (const fs::path& path : files_in(cache.path())) write_file(path, bytes);
  CHECK(learn_tokenizer(corpus, 270)->hash() == train_bpe(kText + kText, 270)->hash());
}

TEST_CASE("tokens outlive their cache file, however it is cut or overwritten", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  data.add("train.txt", kText);
  const Corpus corpus = Corpus::open(data.path());
  const auto bytes = byte_tokenizer();
  const TokenStream made = tokenize_split(corpus, Split::Train, *bytes);
  const TokenStream read = tokenize_split(corpus, Split::Train, *bytes);
  const std::vector<int32_t> expected = ids_of(tokenize_text(kText, *bytes));
  const fs::path file = files_in(cache.path())[0];
  damage(file, 90);
  CHECK(ids_of(made) == expected);
  CHECK(ids_of(read) == expected);
  fs::resize_file(file, 0);
  CHECK(ids_of(made) == expected);
  CHECK(ids_of(read) == expected);
}

TEST_CASE("a cache with ids that the tokenizer does not have is made again", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  data.add("train.txt", kText);
  const Corpus corpus = Corpus::open(data.path());
  const auto bytes = byte_tokenizer();
  const std::vector<int32_t> expected = ids_of(tokenize_split(corpus, Split::Train, *bytes));
  const fs::path path = files_in(cache.path())[0];
  for (const int32_t stranger : {257, -1}) {
    std::string file = read_file(path);
    std::vector<int32_t> ids = expected;
    ids[3] = stranger;
    const std::string_view stored(reinterpret_cast<const char*>(ids.data()), 4 * ids.size());
    // Of the ids and of the counts before them.
    const uint64_t hash = hash_bytes(stored, hash_bytes(file.substr(48, 32)));
    file.replace(file.size() - stored.size(), stored.size(), stored);
    file.replace(40, sizeof hash, reinterpret_cast<const char*>(&hash), sizeof hash);
    write_file(path, file);
    CHECK(ids_of(tokenize_split(corpus, Split::Train, *bytes)) == expected);
    CHECK(read_file(path) != file);
  }
}

TEST_CASE("a learnt tokenizer is cached by text and size; damage has it learnt again", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  const std::string text = kText + kText;
  data.add("train.txt", text);
  const Corpus corpus = Corpus::open(data.path());
  const uint64_t expected = train_bpe(text, 270)->hash();
  REQUIRE(train_bpe(text, 262)->hash() != expected);
  CHECK(learn_tokenizer(corpus, 270)->hash() == expected);
  REQUIRE(files_in(cache.path()).size() == 1);
  const fs::path file = files_in(cache.path())[0];
  const auto size = fs::file_size(file);
  const auto written = fs::last_write_time(file);
  CHECK(learn_tokenizer(corpus, 270)->hash() == expected);
  CHECK(fs::last_write_time(file) == written);
  for (const auto length : {size - 1, size / 2, uintmax_t{17}, uintmax_t{3}, uintmax_t{0}}) {
    fs::resize_file(file, length);
    CHECK(learn_tokenizer(corpus, 270)->hash() == expected);
    CHECK(fs::file_size(file) == size);
  }
  for (const std::streamoff at : {std::streamoff{0}, static_cast<std::streamoff>(size) / 2}) {
    damage(file, at);
    CHECK(learn_tokenizer(corpus, 270)->hash() == expected);
  }
  CHECK(learn_tokenizer(corpus, 262)->hash() == train_bpe(text, 262)->hash());
  CHECK(files_in(cache.path()).size() == 2);
  const std::string changed = text + kText + " three three";
  data.add("train.txt", changed);
  CHECK(learn_tokenizer(corpus, 270)->hash() == train_bpe(changed, 270)->hash());
  CHECK(files_in(cache.path()).size() == 3);
  const Setting no_folder("REGLA_CACHE", data.path("train.txt"));  // a file is no folder
  CHECK(learn_tokenizer(corpus, 262)->hash() == train_bpe(changed, 262)->hash());
}

TEST_CASE("a cache that cannot be written is done without", "[text]") {
  const test::TextFolder data;
  data.add("train.txt", kText);
  const Setting setting("REGLA_CACHE", data.path("train.txt"));  // a file is no folder
  const auto bytes = byte_tokenizer();
  const TokenStream stream = tokenize_split(Corpus::open(data.path()), Split::Train, *bytes);
  CHECK(ids_of(stream) == ids_of(tokenize_text(kText, *bytes)));
  CHECK(files_in(data.path()).size() == 1);
}

TEST_CASE("a full disk costs the cache, not the tokens", "[text]") {
  const test::TextFolder data, cache;
  const Setting setting("REGLA_CACHE", cache.path());
  data.add("train.txt", kText);
  const auto bytes = byte_tokenizer();
  const std::string kept = data.add("tokenizer.json", "old");
  std::vector<int32_t> ids;
  std::string error;
  {
    const FullDisk full(100);  // no check inside: a report that fails could not be written either
    ids = ids_of(tokenize_split(Corpus::open(data.path()), Split::Train, *bytes));
    error = test::error_of([&] { save_tokenizer(*bytes, kept); });
  }
  CHECK(ids == ids_of(tokenize_text(kText, *bytes)));
  CHECK(error == "[file] cannot write " + kept + ": File too large");
  CHECK(files_in(cache.path()).empty());
  CHECK(files_in(data.path()).size() == 2);
  CHECK(fs::file_size(kept) == 3);
}

TEST_CASE("the cache's folder follows the environment", "[text]") {
  const Setting own("REGLA_CACHE", ""), xdg("XDG_CACHE_HOME", "/x"), home("HOME", "/h");
  CHECK(cache_folder() == "/x/regla");
  const Setting no_xdg("XDG_CACHE_HOME", "");
  CHECK(cache_folder() == "/h/.cache/regla");
  const Setting no_home("HOME", "");
  const test::TextFolder shared;
  const Setting temporary("TMPDIR", shared.path());
  const std::string mine = shared.path("regla-" + std::to_string(::geteuid()));
  CHECK(cache_folder() == mine);
  CHECK(fs::status(mine).permissions() == fs::perms::owner_all);
  fs::permissions(mine, fs::perms::others_write, fs::perm_options::add);
  CHECK(cache_folder().empty());
  fs::remove(mine);
  fs::create_directory(shared.path("elsewhere"));
  fs::create_directory_symlink(shared.path("elsewhere"), mine);
  CHECK(cache_folder().empty());
  shared.add("train.txt", kText);
  const auto bytes = byte_tokenizer();
  tokenize_split(Corpus::open(shared.path("train.txt")), Split::Train, *bytes);
  CHECK(fs::is_empty(shared.path("elsewhere")));
  fs::remove(mine);
  fs::create_directory(mine);
  fs::permissions(mine, fs::perms::owner_all);
  if (::geteuid() == 0) {  // another user's
    REQUIRE(::chown(mine.c_str(), 12345, 12345) == 0);
    CHECK(cache_folder().empty());
  }
}
