#include "text/token_cache.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iomanip>
#include <optional>
#include <sstream>
#include <utility>

#include "core/check.h"
#include "core/hash.h"
#include "storage/files.h"
#include "text/bpe_trainer.h"
#include "text/unicode.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

// To be raised when the same stored bytes give other tokens or another tokenizer: when they are
// unpacked, or their documents, words, merges or counts found, in another way.
constexpr uint64_t kVersion = 2;

// A hash of all that decides what is made of a stored text, but for the tokenizer: the text, the
// rules, and the tables of Unicode, which come from the system and decide words and normal forms.
uint64_t text_key(const StoredSplit& stored) {
  return mix_hash(hash_bytes(unicode_version(), kVersion), stored.hash());
}

constexpr uint64_t kTokenizerLimit = uint64_t{1} << 28;  // bytes of a learnt tokenizer

// What a cache file begins with; the ids follow. In the byte order of the machine, which is no
// loss: another order fails the version check and the file is made again.
struct Header {
  std::array<char, 8> magic = {'r', 'e', 'g', 'l', 'a', 't', 'o', 'k'};
  uint64_t version = kVersion;
  uint64_t text_hash = 0;
  uint64_t tokenizer_hash = 0;
  uint64_t count = 0;
  uint64_t content_hash = 0;  // of the ids and the counts
  TextCounts counts;
};
static_assert(sizeof(Header) == 80 && sizeof(Header) % alignof(int32_t) == 0);

std::string_view bytes_of(std::span<const int32_t> ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size_bytes()};
}

uint64_t content_hash(std::span<const int32_t> ids, const TextCounts& counts) {
  static_assert(sizeof counts == 4 * sizeof(int64_t), "no padding");
  const std::string_view numbers(reinterpret_cast<const char*>(&counts), sizeof counts);
  return hash_bytes(bytes_of(ids), hash_bytes(numbers));
}

// The tokens of a cache file; nothing where it is absent, damaged, or of another text or tokenizer.
std::optional<TokenStream> find_cached(const fs::path& path, const Header& wanted, int32_t vocab) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  Header header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof(Header))) return std::nullopt;
  const bool ours = header.magic == wanted.magic && header.version == wanted.version &&
                    header.text_hash == wanted.text_hash &&
                    header.tokenizer_hash == wanted.tokenizer_hash;
  const uint64_t payload = fs::file_size(path, error) - sizeof(Header);
  if (!ours || error || payload % sizeof(int32_t) != 0 ||
      payload / sizeof(int32_t) != header.count) {
    return std::nullopt;
  }
  std::vector<int32_t> ids(header.count);
  file.read(reinterpret_cast<char*>(ids.data()), static_cast<std::streamsize>(payload));
  // The hash is no secret: whoever can write it can write any ids.
  const bool known =
      std::all_of(ids.begin(), ids.end(), [vocab](int32_t id) { return id >= 0 && id < vocab; });
  if (!file || !known || content_hash(ids, header.counts) != header.content_hash) {
    return std::nullopt;
  }
  return TokenStream(std::move(ids), header.counts);
}

// Writes the parts one after the other, where that is possible.
void store(const fs::path& path, std::initializer_list<std::string_view> parts) {
  if (path.empty()) return;
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  try {
    AtomicFile file(path);
    for (const std::string_view part : parts) file.write(part);
    file.commit();
  } catch (const Error&) {  // done without
  }
}

// Whether a folder that everybody may write beside is this user's alone, made here if it is absent.
bool is_private(const fs::path& folder) {
  ::mkdir(folder.c_str(), 0700);
  struct stat status {};
  return ::lstat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == ::geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

// Where the cache has the file; empty without a cache.
fs::path cache_path(const std::string& name) {
  const fs::path folder = cache_folder();
  return folder.empty() ? folder : folder / name;
}

std::string hex(uint64_t number) {
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << number;
  return out.str();
}

}  // namespace

TokenStream tokenize_text(std::string_view text, const Tokenizer& tokenizer) {
  return TokenStream(tokenizer.encode_documents(documents(text)), count_text(text));
}

TokenStream tokenize_split(const Corpus& corpus, Split split, const Tokenizer& tokenizer) {
  StoredSplit stored = corpus.stored(split);
  Header header;
  header.text_hash = text_key(stored);
  header.tokenizer_hash = tokenizer.hash();
  const fs::path path = cache_path(std::string(name_of(split)) + "-" + hex(header.text_hash) + "-" +
                                   hex(header.tokenizer_hash) + ".tokens");
  if (auto cached = find_cached(path, header, tokenizer.vocab_size())) return *std::move(cached);
  TokenStream stream = tokenize_text(std::move(stored).text(), tokenizer);
  header.count = stream.ids().size();
  header.counts = stream.counts();
  header.content_hash = content_hash(stream.ids(), header.counts);
  const std::string_view head(reinterpret_cast<const char*>(&header), sizeof(Header));
  store(path, {head, bytes_of(stream.ids())});
  return stream;
}

std::unique_ptr<Tokenizer> learn_tokenizer(const Corpus& corpus, int32_t vocab_size) {
  StoredSplit stored = corpus.stored(Split::Train);
  const uint64_t key = mix_hash(text_key(stored), static_cast<uint64_t>(vocab_size));
  const fs::path path = cache_path("bpe-" + hex(key) + ".json");
  // A line with the hash of what follows and of what it was made for, so that neither damage nor
  // another file of this name goes unnoticed.
  const auto first_line = [&](std::string_view json) { return hex(hash_bytes(json, key)) + "\n"; };
  try {
    const std::string file = read_file(path, kTokenizerLimit);
    const std::string_view json = std::string_view(file).substr(first_line("").size());
    if (file.starts_with(first_line(json))) return tokenizer_from_json(json);
  } catch (const std::exception&) {  // absent, too short, unreadable: learn it
  }
  auto tokenizer = train_bpe(std::move(stored).text(), vocab_size);
  const std::string json = tokenizer->to_json();
  store(path, {first_line(json), json});
  return tokenizer;
}

std::string cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value == nullptr ? "" : value);
  };
  if (const fs::path own = variable("REGLA_CACHE"); !own.empty()) return own.string();
  if (const fs::path xdg = variable("XDG_CACHE_HOME"); !xdg.empty())
    return (xdg / "regla").string();
  if (const fs::path home = variable("HOME"); !home.empty()) {
    return (home / ".cache" / "regla").string();
  }
  std::error_code error;
  const fs::path temporary = fs::temp_directory_path(error);
  const fs::path own = temporary / ("regla-" + std::to_string(::geteuid()));
  return !error && is_private(own) ? own.string() : "";
}

}  // namespace regla
