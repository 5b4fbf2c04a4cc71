#include "scoring/tasks/json_documents.h"

#include <utility>

#include "scoring/python_text.h"

namespace regla {
namespace {

/// The start of every message about a place in a file.
std::string place(const TaskFile& file, const char* unit, size_t number) {
  return "[eval] " + file.path.string() + ", " + unit + " " + std::to_string(number) + ":";
}

/// The object with its keys in the order of the alphabet and without those that are null, which is
/// what other formats of the same file write where a key is missing.
nlohmann::json sorted(const Json& value) {
  if (value.is_array()) {
    nlohmann::json list = nlohmann::json::array();
    for (const Json& element : value) list.push_back(sorted(element));
    return list;
  }
  if (!value.is_object()) return value;
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [key, member] : value.items()) {
    if (!member.is_null()) object[key] = sorted(member);
  }
  return object;
}

JsonDocument document_of(Json value, std::string where) {
  check(value.is_object(), where, " expected an object, got ", shown(value));
  return {std::move(value), std::move(where)};
}

}  // namespace

bool JsonDocument::has(std::string_view key) const {
  const auto found = object_.find(std::string(key));
  return found != object_.end() && !found->is_null();
}

const Json& JsonDocument::at(std::string_view key) const {
  if (!has(key)) fail("expected the key " + std::string(key));
  return object_.at(std::string(key));
}

std::string JsonDocument::text(std::string_view key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail("expected a text as " + std::string(key) + ", got " + shown(value));
  return value.get<std::string>();
}

std::vector<std::string> JsonDocument::texts(std::string_view key) const {
  const Json& values = at(key);
  if (!values.is_array() || values.empty()) {
    fail("expected at least one choice as " + std::string(key) + ", got " + shown(values));
  }
  std::vector<std::string> texts;
  for (const Json& value : values) {
    if (!value.is_string()) fail("expected texts as " + std::string(key) + ", got " + shown(value));
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

int64_t JsonDocument::index(std::string_view key, int64_t count, int64_t first) const {
  const Json& value = at(key);
  const std::string digits = value.is_string() ? value.get<std::string>() : value.dump();
  for (int64_t i = 0; i < count; ++i) {
    if (digits == std::to_string(i + first)) return i;
  }
  fail("expected " + std::string(key) + " from " + std::to_string(first) + " to " +
       std::to_string(first + count - 1) + ", got " + shown(value));
}

std::string JsonDocument::fields() const { return sorted(object_).dump(); }

void JsonDocument::fail(const std::string& what) const { regla::fail(where_, " ", what); }

std::vector<JsonDocument> json_documents(const TaskFile& file) {
  std::vector<JsonDocument> documents;
  const std::string_view text = file.text;
  if (left_stripped(text).starts_with('[')) {
    const Json list = parse_json(text, "[eval] " + file.path.string() + ":");
    for (const Json& value : list) {
      documents.push_back(document_of(value, place(file, "document", documents.size() + 1)));
    }
  } else {
    size_t number = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = text.substr(begin, end - begin);
      begin = end + 1;
      const std::string where = place(file, "line", ++number);
      if (!stripped(line).empty()) documents.push_back(document_of(parse_json(line, where), where));
    }
  }
  check(!documents.empty(), "[eval] ", file.path.string(), ": expected documents, got none");
  return documents;
}

std::vector<TaskDocument> made_from_json(const TaskFile& file,
                                         TaskDocument (*make)(const JsonDocument&)) {
  std::vector<TaskDocument> documents;
  for (const JsonDocument& document : json_documents(file)) documents.push_back(make(document));
  return documents;
}

std::string solved(std::string_view question, std::string_view answer) {
  return std::string(question) + " " + std::string(answer) + "\n\n";
}

std::string continued(std::string_view choice) { return " " + std::string(choice); }

TaskDocument multiple_choice(const JsonDocument& from, std::string question,
                             const std::vector<std::string>& choices, int64_t gold) {
  TaskDocument document;
  document.fields = from.fields();
  document.example = solved(question, choices.at(static_cast<size_t>(gold)));
  document.contexts = {std::move(question)};
  for (const std::string& choice : choices) {
    document.continuations.push_back(continued(choice));
    document.characters.push_back(count_characters(choice));
  }
  document.gold = gold;
  return document;
}

}  // namespace regla
