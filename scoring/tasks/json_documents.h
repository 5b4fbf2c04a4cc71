#pragma once

// Included by .cpp files only, as storage/json_fields.h.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "scoring/task.h"
#include "storage/json_fields.h"

namespace regla {

/// A document that is a JSON object. Errors name file and line, or the place in a list.
class JsonDocument {
 public:
  JsonDocument(Json object, std::string where)
      : object_(std::move(object)), where_(std::move(where)) {}

  bool has(std::string_view key) const;
  /// A text that has to be there.
  std::string text(std::string_view key) const;
  /// Texts, at least one.
  std::vector<std::string> texts(std::string_view key) const;
  /// An index below `count`: a number, or one written as a text. `first` is what 0 is written as.
  int64_t index(std::string_view key, int64_t count, int64_t first = 0) const;
  /// A value that has to be there.
  const Json& at(std::string_view key) const;
  void set(std::string_view key, Json value) { object_[std::string(key)] = std::move(value); }
  /// TaskDocument::fields.
  std::string fields() const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  Json object_;
  std::string where_;
};

/// The documents of a file with an object in each line, or with one list of objects. An Error for a
/// file with none.
std::vector<JsonDocument> json_documents(const TaskFile& file);

/// The document that `make` makes of each.
std::vector<TaskDocument> made_from_json(const TaskFile& file,
                                         TaskDocument (*make)(const JsonDocument&));

/// A question and its answer as an example in front of other questions.
std::string solved(std::string_view question, std::string_view answer);
/// A choice as the continuation of a question.
std::string continued(std::string_view choice);
/// A question with its choices, of which one is right.
TaskDocument multiple_choice(const JsonDocument& from, std::string question,
                             const std::vector<std::string>& choices, int64_t gold);

}  // namespace regla
