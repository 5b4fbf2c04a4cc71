#include <string>

#include "scoring/python_text.h"
#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"
#include "storage/files.h"

namespace regla {
namespace {

constexpr uint64_t kMostLabels = uint64_t{1} << 28;  // bytes of a file with a digit in each line

/// The lines of a text, without the empty one behind the last line end.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.emplace_back(stripped(std::string_view(text).substr(begin, end - begin)));
    begin = end + 1;
  }
  return lines;
}

/// Gives documents that have none the labels from the file beside theirs.
void add_labels(const TaskFile& file, std::vector<JsonDocument>& documents) {
  if (documents[0].has("label")) return;
  std::filesystem::path path = file.path;
  path.replace_filename(path.stem().string() + "-labels.lst");
  const std::vector<std::string> labels = lines_of(read_file(path, kMostLabels));
  check(labels.size() == documents.size(), "[eval] ", path.string(), ": expected a label for each ",
        "of the ", documents.size(), " documents of ", file.path.string(), ", got ", labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    check(labels[i] == "0" || labels[i] == "1", "[eval] ", path.string(), ", line ", i + 1,
          ": expected 0 or 1, got ", quoted(labels[i]));
    documents[i].set("label", labels[i] == "1" ? 1 : 0);
  }
}

TaskDocument document_of(const JsonDocument& from) {
  return multiple_choice(from, "Question: " + from.text("goal") + "\nAnswer:",
                         {from.text("sol1"), from.text("sol2")}, from.index("label", 2));
}

}  // namespace

std::vector<TaskDocument> read_piqa(const TaskFile& file) {
  std::vector<JsonDocument> from = json_documents(file);
  add_labels(file, from);
  std::vector<TaskDocument> documents;
  for (const JsonDocument& document : from) documents.push_back(document_of(document));
  return documents;
}

}  // namespace regla
