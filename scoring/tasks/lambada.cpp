#include <string>

#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"

namespace regla {
namespace {

/// The last word is to be told from what stands before it.
TaskDocument document_of(const JsonDocument& from) {
  const std::string text = from.text("text");
  const size_t space = text.rfind(' ');
  const std::string before = space == text.npos ? "" : text.substr(0, space);
  const std::string target = continued(text.substr(space == text.npos ? 0 : space + 1));
  TaskDocument document;
  document.fields = from.fields();
  document.contexts = {before};
  document.continuations = {target};
  document.example = solved(before, target);  // with two spaces
  return document;
}

}  // namespace

std::vector<TaskDocument> read_lambada(const TaskFile& file) {
  return made_from_json(file, document_of);
}

}  // namespace regla
