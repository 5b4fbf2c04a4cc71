#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace regla {

/// A record of a file of comma-separated values and the line in which it begins, from 1 on.
struct CsvRecord {
  std::vector<std::string> fields;
  int64_t line;
};

/// The records of a text with fields in quotes where they hold commas, quotes or line ends (RFC
/// 4180). A byte order mark is skipped. `who` begins the Error for a quote that is not closed.
std::vector<CsvRecord> csv_records(std::string_view text, std::string_view who);

}  // namespace regla
