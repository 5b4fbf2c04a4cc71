#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace regla::app {

/// A piece of an HTML page. Whatever text becomes one is escaped: nothing that comes from a run can
/// be markup.
class Html {
 public:
  Html() = default;
  Html(std::string_view text);  // NOLINT(google-explicit-constructor)
  Html(const std::string& text) : Html(std::string_view(text)) {}  // NOLINT
  Html(const char* text) : Html(std::string_view(text)) {}         // NOLINT

  /// Markup that the program itself wrote.
  static Html markup(std::string text);

  Html& operator+=(const Html& more);
  friend Html operator+(Html left, const Html& right) { return left += right; }
  const std::string& text() const { return text_; }
  bool is_empty() const { return text_.empty(); }

 private:
  std::string text_;
};

using Attributes = std::initializer_list<std::pair<const char*, std::string_view>>;

/// `<name attribute="value">content</name>`
Html element(const char* name, const Html& content, Attributes attributes = {});

/// A row of a table; its first cell is the row's heading.
struct TableRow {
  std::vector<Html> cells;
  bool is_marked = false;
};

/// A table that scrolls by itself where it is wider than the page. No heading: an empty `head`.
Html table(const std::vector<Html>& head, const std::vector<TableRow>& rows);

/// A heading with what belongs to it; nothing where that is nothing.
Html section(std::string_view title, const Html& content);

/// Something to open and close.
Html folded(std::string_view title, const Html& content);

/// The whole file: style in it, readable in light and dark and on small screens, and a policy under
/// which a browser runs no script and loads nothing.
std::string page(std::string_view title, const Html& content);

}  // namespace regla::app
