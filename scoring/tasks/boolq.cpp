#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"

namespace regla {
namespace {

int64_t label_of(const JsonDocument& from) {
  const char* key = from.has("label") ? "label" : "answer";
  const Json& value = from.at(key);
  return value.is_boolean() ? (value.get<bool>() ? 1 : 0) : from.index(key, 2);
}

TaskDocument document_of(const JsonDocument& from) {
  // SuperGLUE's form has the title in front of the passage; the original one has it apart.
  std::string passage = from.text("passage");
  if (from.has("title")) passage = from.text("title") + " -- " + passage;
  return multiple_choice(from, passage + "\nQuestion: " + from.text("question") + "?\nAnswer:",
                         {"no", "yes"}, label_of(from));
}

}  // namespace

std::vector<TaskDocument> read_boolq(const TaskFile& file) {
  return made_from_json(file, document_of);
}

}  // namespace regla
