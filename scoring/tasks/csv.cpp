#include "scoring/tasks/csv.h"

#include "core/check.h"

namespace regla {
namespace {

/// Reads one field and moves `text` behind it, to a comma, a line end or the end.
std::string next_field(std::string_view& text, int64_t& line, std::string_view who) {
  if (!text.starts_with('"')) {
    const std::string_view field = text.substr(0, text.find_first_of(",\r\n"));
    text.remove_prefix(field.size());
    return std::string(field);
  }
  const int64_t first = line;
  std::string field;
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '"' && at + 1 < text.size() && text[at + 1] == '"') {
      ++at;
    } else if (text[at] == '"') {
      text.remove_prefix(at + 1);
      return field;
    }
    line += text[at] == '\n' ? 1 : 0;
    field.push_back(text[at]);
  }
  fail(who, ", line ", first, ": a quote is not closed");
}

}  // namespace

std::vector<CsvRecord> csv_records(std::string_view text, std::string_view who) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  std::vector<CsvRecord> records;
  for (int64_t line = 1; !text.empty(); ++line) {
    CsvRecord record = {{}, line};
    record.fields.push_back(next_field(text, line, who));
    while (text.starts_with(',')) {
      text.remove_prefix(1);
      record.fields.push_back(next_field(text, line, who));
    }
    check(text.empty() || text[0] == '\r' || text[0] == '\n', who, ", line ", line,
          ": expected a comma or a line end behind a quote");
    if (text.starts_with('\r')) text.remove_prefix(1);
    if (text.starts_with('\n')) text.remove_prefix(1);
    if (record.fields.size() > 1 || !record.fields[0].empty()) records.push_back(std::move(record));
  }
  return records;
}

}  // namespace regla
