#pragma once

// JSON for the structs that have a `fields` visitor. Included by .cpp files only: no public header
// of the library depends on the JSON package.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/named_enum.h"

namespace regla {

/// Keeps the order of keys, so that files are written as the structs are declared.
using Json = nlohmann::ordered_json;

/// Parses JSON, in time linear in the text. Malformed text (with line and column), a key given
/// twice, text that is not UTF-8 and more than kMaxJsonDepth levels of nesting are Errors that
/// begin with `who`.
Json parse_json(std::string_view text, std::string_view who);
constexpr size_t kMaxJsonDepth = 64;

/// The object that a line of a log holds, and its whole number `step`; nothing where there is none.
std::optional<Json> object_in(std::string_view line);
std::optional<int64_t> step_in(const Json& object);

/// `value` as one line of JSON, shortened when long, for messages.
std::string shown(const Json& value);

/// JSON as text; an Error when a string in it is not UTF-8.
std::string dumped(const Json& value, int indent = -1);

/// The text in quotes with everything unprintable escaped, for messages. An object, because a call
/// of a function with a std::string would find std::quoted, which escapes nothing.
struct Quoted {
  std::string operator()(std::string_view text) const { return shown(Json(std::string(text))); }
};
inline constexpr Quoted quoted;

/// The same without the quotes, for names of keys.
std::string shown_key(std::string_view key);

/// The entry of `known` that `word` most likely stands for: what other programs call that key, the
/// beginning of it, or the one with the smallest edit distance, in any case. A dotted entry may
/// also match by its last part.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// Reads one value. `key` is its full name, for messages: wrong types, fractions where an integer
/// is expected, numbers out of range and unknown names are Errors.
void read_value(const Json& json, std::string_view key, bool& value);
void read_value(const Json& json, std::string_view key, int64_t& value);
void read_value(const Json& json, std::string_view key, uint64_t& value);
void read_value(const Json& json, std::string_view key, double& value);
void read_value(const Json& json, std::string_view key, std::string& value);

/// The index of the name in `names`; `read_value` of every enumeration.
size_t read_name(const Json& json, std::string_view key, const std::vector<std::string>& names);

template <NamedEnum E>
void read_value(const Json& json, std::string_view key, E& value) {
  const auto names = names_of(E{});
  value = static_cast<E>(read_name(json, key, {names.begin(), names.end()}));
}

inline Json to_json_value(bool value) { return value; }
inline Json to_json_value(int64_t value) { return value; }
inline Json to_json_value(uint64_t value) { return value; }
inline Json to_json_value(double value) { return value; }
inline Json to_json_value(const std::string& value) { return value; }

template <NamedEnum E>
Json to_json_value(E value) {
  return std::string(names_of(E{})[static_cast<size_t>(value)]);
}

/// All of a struct's keys and values.
template <class Config>
Json write_fields(const Config& config) {
  Json object = Json::object();
  fields(config, [&](const char* name, const auto& member, const char*) {
    object[name] = to_json_value(member);
  });
  return object;
}

/// Throws the Error for a key that no field has.
[[noreturn]] void fail_unknown_key(std::string_view key, const std::vector<std::string>& known);

/// Sets the members that `object` names and leaves the others. `prefix` ("" or "mixer.") goes
/// before the names in messages; `elsewhere` are keys to suggest for unknown ones besides the
/// struct's own.
template <class Config>
void read_fields(const Json& object, std::string_view prefix, Config& config,
                 const std::vector<std::string>& elsewhere = {}) {
  check(object.is_object(), "[config] expected an object",
        prefix.empty() ? "" : " for " + std::string(prefix.substr(0, prefix.size() - 1)), ", got ",
        shown(object));
  std::vector<std::string> known;
  fields(config, [&](const char* name, auto& member, const char*) {
    known.push_back(std::string(prefix) + name);
    const auto found = object.find(name);
    if (found != object.end()) read_value(*found, known.back(), member);
  });
  const size_t own = known.size();
  known.insert(known.end(), elsewhere.begin(), elsewhere.end());
  for (const auto& item : object.items()) {
    const std::string key = std::string(prefix) + item.key();
    const auto last = known.begin() + static_cast<std::ptrdiff_t>(own);
    if (std::find(known.begin(), last, key) == last) fail_unknown_key(key, known);
  }
}

}  // namespace regla
