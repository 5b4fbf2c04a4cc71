#include "app/reproduce/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string_view>

#include "core/check.h"

namespace regla::app {
namespace {

std::string fixed(double value, int decimals, bool has_sign = false) {
  char text[64];
  std::snprintf(text, sizeof text, has_sign ? "%+.*f" : "%.*f", decimals, value);
  const bool is_nothing = std::string_view(text).find_first_of("123456789") == std::string::npos;
  return is_nothing && has_sign ? text + 1 : text;
}

std::string shown_number(const std::optional<double>& value, int decimals, bool has_sign = false) {
  return value ? fixed(*value, decimals, has_sign) : "-";
}

Json json_number(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

/// How many characters a terminal shows: bytes of UTF-8 that begin one.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::vector<std::string> different(const std::vector<Cell>& cells, std::string Cell::*name) {
  std::vector<std::string> names;
  for (const Cell& cell : cells) {
    if (std::ranges::find(names, cell.*name) == names.end()) names.push_back(cell.*name);
  }
  return names;
}

std::vector<std::string> long_row(const Cell& cell, int decimals) {
  return {cell.row,
          std::to_string(cell.values.size()),
          shown_number(cell.mean(), decimals),
          shown_number(cell.spread(), decimals + 1),
          shown_number(cell.paper, decimals),
          shown_number(cell.difference(), decimals, true)};
}

std::string short_cell(const Cell& cell, int decimals) {
  if (cell.values.empty()) return "-";
  std::string text = fixed(*cell.mean(), decimals);
  if (const auto spread = cell.spread()) text += " ± " + fixed(*spread, decimals);
  if (!cell.paper) return text;
  return text + " (" + fixed(*cell.paper, decimals) + ", " +
         fixed(*cell.difference(), decimals, true) + ")";
}

std::string table_of(const Comparison& comparison) {
  const std::vector<std::string> columns = different(comparison.cells, &Cell::column);
  std::vector<std::vector<std::string>> rows;
  if (columns.size() == 1) {
    rows.push_back({"", "seeds", columns[0], "spread", comparison.paper_is, "difference"});
    for (const Cell& cell : comparison.cells) rows.push_back(long_row(cell, comparison.decimals));
    return markdown_table(rows);
  }
  rows.push_back({""});
  rows[0].insert(rows[0].end(), columns.begin(), columns.end());
  for (const std::string& name : different(comparison.cells, &Cell::row)) {
    rows.push_back({name});
    for (const std::string& column : columns) {
      const auto cell = std::ranges::find_if(
          comparison.cells, [&](const Cell& c) { return c.row == name && c.column == column; });
      rows.back().push_back(
          cell == comparison.cells.end() ? "" : short_cell(*cell, comparison.decimals));
    }
  }
  const auto has = [&](auto what) { return std::ranges::any_of(comparison.cells, what); };
  const bool has_spread = has([](const Cell& cell) { return cell.spread().has_value(); });
  const bool has_paper = has([](const Cell& cell) { return cell.paper.has_value(); });
  return markdown_table(rows) + "\nEach: ours" +
         (has_spread ? " ± standard deviation over the seeds" : "") +
         (has_paper ? " (" + comparison.paper_is + ", difference)" : "") + ".\n";
}

}  // namespace

std::optional<double> Cell::mean() const {
  if (values.empty()) return std::nullopt;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::optional<double> Cell::spread() const {
  if (values.size() < 2) return std::nullopt;
  double squares = 0;
  for (const double value : values) squares += (value - *mean()) * (value - *mean());
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

std::optional<double> Cell::difference() const {
  if (values.empty() || !paper) return std::nullopt;
  return *mean() - *paper;
}

Cell& cell_of(Comparison& comparison, const std::string& row, const std::string& column) {
  for (Cell& cell : comparison.cells) {
    if (cell.row == row && cell.column == column) return cell;
  }
  return comparison.cells.emplace_back(
      Cell{.row = row, .column = column, .values = {}, .paper = {}});
}

Json json_of(const Comparison& comparison) {
  Json cells = Json::array();
  for (const Cell& cell : comparison.cells) {
    cells.push_back({{"row", cell.row},
                     {"column", cell.column},
                     {"values", cell.values},
                     {"ours", json_number(cell.mean())},
                     {"spread", json_number(cell.spread())},
                     {"paper", json_number(cell.paper)},
                     {"difference", json_number(cell.difference())}});
  }
  return {{"title", comparison.title},       {"paper_is", comparison.paper_is},
          {"settings", comparison.settings}, {"cells", cells},
          {"notes", comparison.notes},       {"pictures", comparison.pictures}};
}

std::string text_of(const Comparison& comparison) {
  std::string text = "## " + comparison.title + "\n\n";
  for (const auto& [name, value] : comparison.settings.items()) {
    text +=
        "- " + name + ": " + (value.is_string() ? value.get<std::string>() : value.dump()) + "\n";
  }
  text += "\n" + table_of(comparison);
  if (!comparison.notes.empty()) text += "\n";
  for (const std::string& note : comparison.notes) text += "- " + note + "\n";
  if (!comparison.pictures.empty()) text += "\n";
  for (const std::string& picture : comparison.pictures) {
    text += "![" + comparison.title + "](" + picture + ")\n";
  }
  return text;
}

std::string markdown_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.at(0).size(), 3);
  for (const auto& row : rows) {
    check(row.size() == widths.size(), "[table] expected rows of one length");
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string blanks(widths[i] - width_of(rows[r][i]), ' ');
      text += i == 0 ? "| " + rows[r][i] + blanks + " |" : " " + blanks + rows[r][i] + " |";
    }
    text += "\n";
    if (r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      text += i == 0 ? "| " + std::string(widths[i], '-') + " |"
                     : " " + std::string(widths[i] - 1, '-') + ": |";
    }
    text += "\n";
  }
  return text;
}

}  // namespace regla::app
