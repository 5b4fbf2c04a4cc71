#include <string>

#include "scoring/python_text.h"
#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"

namespace regla {
namespace {

/// The choices are what stands before the continuation: the sentence up to its blank, filled.
TaskDocument document_of(const JsonDocument& from) {
  const std::string sentence = from.text("sentence");
  const size_t blank = sentence.find('_');
  if (blank == sentence.npos) from.fail("expected a blank _ in the sentence");
  const std::string_view rest = stripped(std::string_view(sentence).substr(blank + 1));
  TaskDocument document;
  document.fields = from.fields();
  for (const char* option : {"option1", "option2"}) {
    document.contexts.push_back(sentence.substr(0, blank) + from.text(option));
    document.characters.push_back(count_characters(document.contexts.back()));
  }
  document.continuations = {continued(rest)};
  document.gold = from.index("answer", 2, 1);
  // Where nothing follows the blank, nothing separates the examples.
  const std::string& filled = document.contexts[static_cast<size_t>(document.gold)];
  document.example = rest.empty() ? filled : solved(filled, rest);
  return document;
}

}  // namespace

std::vector<TaskDocument> read_winogrande(const TaskFile& file) {
  return made_from_json(file, document_of);
}

}  // namespace regla
