#pragma once

#include <optional>
#include <string>
#include <vector>

#include "storage/json_fields.h"

namespace regla::app {

/// A number of ours beside the paper's.
struct Cell {
  std::string row, column;
  std::vector<double> values;   ///< one of each seed that is there
  std::optional<double> paper;  ///< nothing where the paper has no number

  /// Nothing without values.
  std::optional<double> mean() const;
  /// The standard deviation over the seeds, of n - 1; nothing below two of them.
  std::optional<double> spread() const;
  std::optional<double> difference() const;
};

/// A table or figure beside the paper's.
struct Comparison {
  std::string title;
  std::string paper_is = "the paper's";  ///< what `Cell::paper` is, for the legend
  Json settings = Json::object();        ///< what it was made with, in words
  std::vector<Cell> cells;
  int decimals = 1;
  std::vector<std::string> notes, pictures;
};

/// The cell of a comparison, made where it is not there yet.
Cell& cell_of(Comparison& comparison, const std::string& row, const std::string& column);

/// Every cell with its values, mean, spread and difference.
Json json_of(const Comparison& comparison);

/// As Markdown. With one column each of ours, spread, the paper's and the difference is a column;
/// with several a cell is `ours ± spread (paper's, difference)`.
std::string text_of(const Comparison& comparison);

/// Rows of cells, the first of them the heads of the columns, as a Markdown table whose columns
/// are aligned for reading: the first to the left, the others to the right.
std::string markdown_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace regla::app
