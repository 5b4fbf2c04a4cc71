#include <string>

#include "scoring/python_text.h"
#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"
#include "text/unicode.h"

namespace regla {
namespace {

/// Without what stands in brackets within a line, which WikiHow's pages left in the texts.
std::string without_brackets(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = text.find('[');
    out += text.substr(0, open);
    if (open == text.npos) break;
    const size_t close = text.find_first_of("]\n", open);
    const bool matches = close != text.npos && text[close] == ']';
    if (!matches) out += '[';
    text.remove_prefix((matches ? close : open) + 1);
  }
  return out;
}

std::string cleaned(std::string_view text) {
  const std::string titled = replaced(stripped(text), " [title]", ". ");
  return replaced(without_brackets(titled), "  ", " ");
}

TaskDocument document_of(const JsonDocument& from) {
  std::vector<std::string> endings = from.texts("endings");
  const auto count = static_cast<int64_t>(endings.size());
  const int64_t gold = from.index(from.has("label") ? "label" : "gold", count);
  // Files that were cleaned before have the question as one text.
  if (from.has("query")) return multiple_choice(from, from.text("query"), endings, gold);
  for (std::string& ending : endings) ending = cleaned(ending);
  const std::string context = from.text("ctx_a") + " " + capitalized(from.text("ctx_b"));
  return multiple_choice(from, cleaned(from.text("activity_label") + ": " + context), endings,
                         gold);
}

}  // namespace

std::vector<TaskDocument> read_hellaswag(const TaskFile& file) {
  return made_from_json(file, document_of);
}

}  // namespace regla
