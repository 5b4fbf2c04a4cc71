#include "core/numbers.h"

#include <charconv>

namespace regla {
namespace {

/// A sign that from_chars does not take, or takes twice ("+-1").
bool skip_plus(std::string_view& text) {
  if (!text.starts_with('+')) return true;
  text.remove_prefix(1);
  return !text.starts_with('-');
}

template <class T>
std::optional<T> parse(std::string_view text) {
  if (!skip_plus(text)) return std::nullopt;
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view text) { return parse<int64_t>(text); }

std::optional<uint64_t> parse_unsigned(std::string_view text) { return parse<uint64_t>(text); }

std::optional<double> parse_real(std::string_view text) {
  // Neither inf nor nan, which from_chars knows.
  if (text.find_first_not_of("0123456789+-.eE") != text.npos) return std::nullopt;
  return parse<double>(text);
}

}  // namespace regla
