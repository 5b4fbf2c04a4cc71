#include <array>
#include <string>
#include <utility>

#include "scoring/python_text.h"
#include "scoring/tasks/json_documents.h"
#include "scoring/tasks/readers.h"
#include "text/unicode.h"

namespace regla {
namespace {

/// Line ends as Python reads them from a file.
std::string with_line_ends(const std::string& text) {
  if (text.find('\r') == text.npos) return text;
  return replaced(replaced(text, "\r\n", "\n"), "\r", "\n");
}

/// Whether a line is the title of a page, not of a section.
bool is_title(std::string_view line) {
  const std::string joined = replaced(replaced(line, "= = =", "==="), "= =", "==");
  const std::string_view bare = stripped(joined);
  return bare.starts_with("= ") && bare.ends_with(" =");
}

/// The pages of a file in WikiText's raw style.
std::vector<std::string> pages_of(const std::string& text) {
  std::vector<std::string> pages;
  size_t first = 0;  // where the page begins
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (is_title(std::string_view(text).substr(begin, end - begin))) {
      const size_t length = begin > first ? begin - first - 1 : 0;  // without the last line's end
      std::string page = text.substr(first, length);
      if (!stripped(page).empty()) pages.push_back(std::move(page));
      first = begin;
    }
    begin = end + 1;
  }
  pages.push_back(text.substr(first));
  return pages;
}

/// `/' 7/` becomes the text `/'[0-9]/`: so the harness has it.
std::string with_digit_pattern(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    const bool matches = rest.starts_with("/' ") && rest.size() > 4 && rest[4] == '/' &&
                         rest[3] >= '0' && rest[3] <= '9';
    out += matches ? "/'[0-9]/" : rest.substr(0, 1);
    at += matches ? 5 : 1;
  }
  return out;
}

/// No white space inside of pairs of these: `( a )` becomes `(a)`.
std::string tightened(std::string_view text, char open, char close) {
  std::string out;
  while (true) {
    const size_t begin = text.find(open);
    const size_t end = begin == text.npos ? begin : text.find(close, begin + 1);
    if (end == text.npos) return out.append(text);
    out.append(text, 0, begin + 1).append(stripped(text.substr(begin + 1, end - begin - 1)));
    out.push_back(close);
    text.remove_prefix(end + 1);
  }
}

/// The text as people write it: WikiText has spaces around punctuation and its own separators.
std::string detokenized(std::string_view page) {
  std::string text = with_digit_pattern(replaced(page, "s '", "s'"));
  using Pairs = std::pair<std::string_view, std::string_view>;
  for (const auto& [from, to] : std::array<Pairs, 9>{{{" @-@ ", "-"},
                                                      {" @,@ ", ","},
                                                      {" @.@ ", "."},
                                                      {" : ", ": "},
                                                      {" ; ", "; "},
                                                      {" . ", ". "},
                                                      {" ! ", "! "},
                                                      {" ? ", "? "},
                                                      {" , ", ", "}}}) {
    text = replaced(text, from, to);
  }
  for (const char* pair : {"()", "[]", "{}", "\"\"", "''"})
    text = tightened(text, pair[0], pair[1]);
  for (const auto& [from, to] : std::array<Pairs, 8>{{{"= = = =", "===="},
                                                      {"= = =", "==="},
                                                      {"= =", "=="},
                                                      {" \xC2\xB0 ", "\xC2\xB0"},
                                                      {" \n", "\n"},
                                                      {"\n ", "\n"},
                                                      {" N ", " 1 "},
                                                      {" 's", "'s"}}}) {
    text = replaced(text, from, to);
  }
  return text;
}

TaskDocument document_of(const std::string& page) {
  TaskDocument document;
  document.fields = page;
  document.continuations = {detokenized(page)};
  document.words = count_split_words(page);
  document.bytes = static_cast<int64_t>(page.size());
  return document;
}

}  // namespace

std::vector<TaskDocument> read_wikitext(const TaskFile& file) {
  std::vector<TaskDocument> documents;
  if (file.path.extension() != ".raw") {
    for (const JsonDocument& from : json_documents(file)) {
      documents.push_back(document_of(from.text("page")));
    }
    return documents;
  }
  check(count_invalid_utf8(file.text) == 0, "[eval] ", file.path.string(),
        ": expected text in UTF-8, got ", count_invalid_utf8(file.text), " bytes that are not");
  for (const std::string& page : pages_of(with_line_ends(file.text))) {
    documents.push_back(document_of(page));
  }
  return documents;
}

}  // namespace regla
