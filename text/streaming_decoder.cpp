#include "text/streaming_decoder.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "text/unicode.h"

namespace regla {
namespace {

/// The bytes at the end of `text` that `whole` begins with, without being all of it.
size_t begun(std::string_view text, std::string_view whole) {
  size_t length = std::min(text.size(), whole.size() - 1);
  while (length > 0 && !whole.starts_with(text.substr(text.size() - length))) --length;
  return length;
}

}  // namespace

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {
  check(std::find(stops_.begin(), stops_.end(), "") == stops_.end(),
        "[generate] expected stop strings of at least one byte");
}

std::string StreamingDecoder::add(int32_t id) {
  if (has_stopped_) return "";
  held_ += tokenizer_.decode({&id, 1});
  size_t end = held_.size();
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at > end || at == held_.npos) continue;
    end = at;
    has_stopped_ = true;
  }
  if (has_stopped_) {
    held_.resize(end);
    return finish();
  }
  size_t waits = unfinished_utf8(held_);
  for (const std::string& stop : stops_) waits = std::max(waits, begun(held_, stop));
  // What a stop string begins with may follow half a character.
  waits += unfinished_utf8(std::string_view(held_).substr(0, held_.size() - waits));
  return taken(held_.size() - waits);
}

std::string StreamingDecoder::finish() { return taken(held_.size()); }

std::string StreamingDecoder::taken(size_t bytes) {
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, bytes));
  held_.erase(0, bytes);
  return text;
}

}  // namespace regla
