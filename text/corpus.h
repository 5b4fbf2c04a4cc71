#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace regla {

enum class Split : uint8_t { Train, Valid, Test };

/// "train", "valid" or "test".
const char* name_of(Split split);

/// A split's file as it is stored, read once: hash and text are those of the same bytes even where
/// the file changes meanwhile.
class StoredSplit {
 public:
  /// A hash of what decides text(): the stored bytes, and which part of them the split is.
  uint64_t hash() const;
  /// The bytes of the split, unpacked, without a byte order mark. Errors: those of Corpus::read.
  std::string text() &&;

 private:
  friend class Corpus;
  std::string path_;
  std::string bytes_;
  std::optional<Split> part_;  // of one text file
};

/// Where the text of each split is found. Either a folder with files
/// `{anything.}{train,valid,test}.{tokens,raw,txt}`, or one text file that is split 90/5/5; any of
/// them may be packed with xz or gzip. `val` and `validation` count as `valid`; other files and
/// hidden ones are ignored.
///
/// A folder may hold a split in several kinds (tokens, raw, txt). The kind asked for is then used
/// for every split, and a split that lacks it is absent. Without one asked for it is the kind of
/// the train split, else the first that exists, in the order tokens, raw, txt; a split that lacks
/// that one is taken in the kind it has, chosen in the same order.
class Corpus {
 public:
  /// Finds the files without reading them. Errors: a path that does not exist or is a pipe or a
  /// device, a folder without such files or with a link of such a name to nothing, two files for
  /// the same split and kind, an unknown kind, or one no file has. Where all that has a split's
  /// name is something else (a folder, a pipe, a file packed otherwise), reading it is the error.
  static Corpus open(const std::string& path, const std::string& kind = "");

  /// Whether there is a file for the split. One text file has all three.
  bool has(Split split) const { return !files_[static_cast<size_t>(split)].empty(); }
  /// The path of the split's file. Error: the corpus has no such split.
  const std::string& file(Split split) const;
  /// The split's file. Errors: no such split, a file that is unreadable, or one that is no text
  /// (text/unpack.h).
  StoredSplit stored(Split split) const;
  /// The text of that. Errors: a file that is empty or corrupt as well, or too few lines to be
  /// split.
  std::string read(Split split) const { return stored(split).text(); }

 private:
  std::string path_;
  std::string kind_;                  // the one asked for, or empty
  std::array<std::string, 3> files_;  // per split, empty for none
  bool one_file_ = false;
};

/// The part of one text file of n bytes that is a split. Parts end at line ends: valid begins with
/// the first line that starts at or behind byte max(1, floor(0.90 n)), test with the first that
/// starts at or behind max(1, floor(0.95 n)). A part may be empty when there are few lines.
std::string_view part_of(std::string_view text, Split split);

/// The documents of a text; put together again they are the text. A document begins where
/// WikiText begins an article: at a line ` = Title = ` with one `=` on either side and blank lines
/// around it (the ends of the text count as such). Lines end with LF or CR LF. Text before the
/// first title is a document of its own unless it is blank; a text without titles is one document,
/// an empty one has none.
std::vector<std::string_view> documents(std::string_view text);

/// What perplexity per word and bits per byte are divided by.
struct TextCounts {
  int64_t bytes = 0;
  int64_t words = 0;          // separated by ASCII white space
  int64_t line_ends = 0;      // '\n'; perplexity per word counts each as one word more
  int64_t invalid_bytes = 0;  // bytes that are not part of valid UTF-8
  bool operator==(const TextCounts&) const = default;
};
TextCounts count_text(std::string_view text);

}  // namespace regla
