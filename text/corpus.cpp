#include "text/corpus.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "core/check.h"
#include "core/hash.h"
#include "text/file_format.h"
#include "text/unicode.h"
#include "text/unpack.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr std::array<Split, 3> kSplits = {Split::Train, Split::Valid, Split::Test};
constexpr std::array<std::string_view, 3> kKinds = {"tokens", "raw", "txt"};

// The paths found for each split (outer) in each kind.
using Files = std::array<std::array<std::string, 3>, 3>;

// Takes the last `.part` off a name; empty if it has none.
std::string_view take_suffix(std::string_view& name) {
  const size_t dot = name.rfind('.');
  const std::string_view suffix = name.substr(dot + 1);  // npos + 1 is 0: the whole name
  name = dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
  return suffix;
}

// What a file's name says that it holds.
struct Place {
  size_t split, kind;
  bool readable;  // as far as the name tells: not packed, or with gzip or xz
};

std::optional<Place> place_of(std::string_view name) {
  // Hidden files are not the user's: macOS puts ._train.txt beside train.txt, for instance.
  if (name.starts_with(".")) return std::nullopt;
  const std::string_view ending = name.substr(name.size() - packed_ending(name));
  name.remove_suffix(ending.size());
  const auto kind = std::find(kKinds.begin(), kKinds.end(), take_suffix(name));
  std::string_view split_name = take_suffix(name);
  if (split_name == "val" || split_name == "validation") split_name = "valid";
  const auto split = std::find_if(kSplits.begin(), kSplits.end(),
                                  [&](Split s) { return split_name == name_of(s); });
  if (kind == kKinds.end() || split == kSplits.end()) return std::nullopt;
  return Place{static_cast<size_t>(split - kSplits.begin()),
               static_cast<size_t>(kind - kKinds.begin()),
               ending.empty() || ending == ".gz" || ending == ".xz"};
}

// Enters what is named like a part of a corpus into `files`, or else into `others` if it cannot be
// read as one.
void enter(const fs::path& path, Files& files, Files& others) {
  const std::optional<Place> place = place_of(path.filename().string());
  if (!place) return;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) require_regular(path.string());
  if (!place->readable || !fs::is_regular_file(status)) {
    others[place->split][place->kind] = path.string();
    return;
  }
  std::string& slot = files[place->split][place->kind];
  check(slot.empty(), "[corpus] expected one file for ", name_of(kSplits[place->split]), " as ",
        kKinds[place->kind], ", got ", slot, " and ", path.string());
  slot = path.string();
}

Files files_in(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    paths.push_back(entry->path());
  }
  check(!error, "[corpus] expected to read the folder ", folder, ", got: ", error.message());
  std::sort(paths.begin(), paths.end());
  Files files, others;
  for (const fs::path& path : paths) enter(path, files, others);
  for (size_t split = 0; split < files.size(); ++split) {
    const bool none = std::all_of(files[split].begin(), files[split].end(),
                                  [](const std::string& path) { return path.empty(); });
    if (none) files[split] = others[split];
  }
  return files;
}

// The index of the kind that is used where there is a choice.
size_t preferred_kind(const Files& files) {
  for (const bool train_only : {true, false}) {
    for (size_t kind = 0; kind < kKinds.size(); ++kind) {
      for (const Split split : kSplits) {
        if (train_only && split != Split::Train) continue;
        if (!files[static_cast<size_t>(split)][kind].empty()) return kind;
      }
    }
  }
  return kKinds.size();
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

bool is_title(std::string_view line) {
  return line.size() > 6 && line.starts_with(" = ") && line.ends_with(" = ") &&
         !line.starts_with(" = = ") && !line.ends_with(" = = ");
}

// The line that begins at `at`, with its LF; empty behind the text.
std::string_view line_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const size_t end = text.find('\n', at);
  return text.substr(at, end == std::string_view::npos ? end : end + 1 - at);
}

// A line without LF or CR LF.
std::string_view without_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

const char* name_of(Split split) {
  switch (split) {
    case Split::Train:
      return "train";
    case Split::Valid:
      return "valid";
    default:
      return "test";
  }
}

Corpus Corpus::open(const std::string& path, const std::string& kind) {
  const auto asked =
      static_cast<size_t>(std::find(kKinds.begin(), kKinds.end(), kind) - kKinds.begin());
  check(kind.empty() || asked < kKinds.size(),
        "[corpus] expected tokens, raw or txt as the kind of text, got ", kind);
  Corpus corpus;
  corpus.path_ = path;
  corpus.kind_ = kind;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    require_regular(path, "a folder or a text file");
    corpus.one_file_ = true;
    corpus.files_.fill(path);
    return corpus;
  }
  const Files files = files_in(path);
  const size_t preferred = kind.empty() ? preferred_kind(files) : asked;
  check(preferred < kKinds.size(), "[corpus] expected files such as train.txt in ", path,
        ", got none named {anything.}{train,valid,test}.{tokens,raw,txt}{,.xz,.gz}");
  bool any = false;
  for (const Split split : kSplits) {
    const auto s = static_cast<size_t>(split);
    corpus.files_[s] = files[s][preferred];
    for (size_t k = 0; kind.empty() && k < kKinds.size() && corpus.files_[s].empty(); ++k) {
      corpus.files_[s] = files[s][k];
    }
    any = any || corpus.has(split);
  }
  check(any, "[corpus] expected files of the kind ", kind, " in ", path, ", got none");
  return corpus;
}

const std::string& Corpus::file(Split split) const {
  check(has(split), "[corpus] expected a file for the ", name_of(split), " split in ", path_,
        ", got none", kind_.empty() ? "" : " of the kind ", kind_);
  return files_[static_cast<size_t>(split)];
}

StoredSplit Corpus::stored(Split split) const {
  StoredSplit out;
  out.path_ = file(split);
  out.bytes_ = read_stored(out.path_);
  if (one_file_) out.part_ = split;
  return out;
}

uint64_t StoredSplit::hash() const {
  return hash_bytes(bytes_, part_ ? 1 + static_cast<uint64_t>(*part_) : 0);
}

std::string StoredSplit::text() && {
  std::string text = unpack(std::move(bytes_), path_);
  check(!text.empty(), "[corpus] expected text, got the empty file ", path_);
  if (!part_) return text;
  const std::string_view part = part_of(text, *part_);
  check(!part.empty(),
        "[corpus] expected enough lines for 90 % train, 5 % valid and 5 % test, got ",
        count_text(text).line_ends, " line ends in ", path_, ", which leave ", name_of(*part_),
        " empty");
  return std::string(part);
}

std::string_view part_of(std::string_view text, Split split) {
  const size_t n = text.size();
  const auto line_start = [&](size_t hundredths) {
    // In two steps, so that n * hundredths cannot overflow.
    const size_t from = std::max<size_t>(1, n / 100 * hundredths + n % 100 * hundredths / 100);
    const size_t line_end = text.find('\n', from - 1);
    return line_end == std::string_view::npos ? n : line_end + 1;
  };
  const size_t valid = n == 0 ? 0 : line_start(90);
  const size_t test = n == 0 ? 0 : line_start(95);
  switch (split) {
    case Split::Train:
      return text.substr(0, valid);
    case Split::Valid:
      return text.substr(valid, test - valid);
    default:
      return text.substr(test);
  }
}

std::vector<std::string_view> documents(std::string_view text) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  bool blank_before = true;
  for (size_t at = 0; at < text.size();) {
    const std::string_view line = line_at(text, at);
    const size_t next = at + line.size();
    if (blank_before && is_title(without_end(line)) && is_blank(line_at(text, next))) {
      const std::string_view before = text.substr(begin, at - begin);
      if (!is_blank(before)) {
        out.push_back(before);
        begin = at;
      }
    }
    blank_before = is_blank(line);
    at = next;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

TextCounts count_text(std::string_view text) {
  TextCounts counts;
  counts.bytes = static_cast<int64_t>(text.size());
  counts.invalid_bytes = count_invalid_utf8(text);
  bool in_word = false;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    counts.words += !space && !in_word;
    counts.line_ends += c == '\n';
    in_word = !space;
  }
  return counts;
}

}  // namespace regla
