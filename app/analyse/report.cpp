#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "app/analyse/analyse.h"
#include "storage/files.h"
#include "text/unicode.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

std::string csv_cell(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const std::string text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string cell = "\"";
  for (const char c : text) cell += c == '"' ? std::string("\"\"") : std::string(1, c);
  return cell + "\"";
}

/// The keys of the first row, then a line per row.
std::string csv(const Json& rows) {
  std::string text, line;
  const auto end_line = [&] {
    text += line.substr(1) + "\n";
    line.clear();
  };
  for (const auto& [key, value] : rows.at(0).items()) line += "," + csv_cell(Json(key));
  end_line();
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) line += "," + csv_cell(value);
    end_line();
  }
  return text;
}

/// Writes a file of the report. A link in its place goes; what it shows is not touched.
void replace_file(const std::string& path, std::string_view text) {
  std::error_code ignored;
  if (fs::is_symlink(path, ignored)) fs::remove(path, ignored);
  write_file(path, text);
}

std::string percent(double fraction) { return rounded(100 * fraction, 3) + " %"; }

}  // namespace

void make_report_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "[analyse] cannot make the folder ", folder, ": ", error.message());
  check(::access(folder.c_str(), W_OK) == 0, "[analyse] cannot write into the folder ", folder);
}

void write_report(const std::string& folder, const Report& report) {
  const fs::path path(folder);
  const auto file = [&](const char* ending) { return (path / (report.name + ending)).string(); };
  Json json = {{"analysis", report.name}, {"settings", report.settings}};
  if (!report.summary.is_null()) json["summary"] = report.summary;
  json["rows"] = report.rows;
  replace_file(file(".json"), json_text(json, 1) + "\n");
  replace_file(file(".csv"), csv(report.rows));
  const std::string head = "# Draws " + report.name + ".svg: gnuplot " + report.name + ".gp > " +
                           report.name +
                           ".svg\nset datafile separator ','\nset datafile columnheaders\n" +
                           "csv = '" + report.name + ".csv'\n";
  replace_file(file(".gp"), head + report.variables + std::string(report.script));
  print_row("numbers", file(".json") + ", " + file(".csv"));
  if (const auto picture = drawn_file(path, report.name + ".gp")) {
    replace_file(file(".svg"), *picture);
    print_row("picture", file(".svg"));
  } else {
    print_row("picture",
              "not drawn: " + std::string(kNoGnuplot) + "; then run it on " + file(".gp"));
  }
}

Json gate_numbers(const LayerGates& layer) {
  const GateStatistics& s = layer.gates;
  return {{"layer", layer.layer < 0 ? Json("all") : Json(layer.layer)},
          {"gates", s.count},
          {"mean", s.mean(s.sum)},
          {"std", s.deviation()},
          {"below_0.05", s.mean(static_cast<double>(s.low))},
          {"above_0.95", s.mean(static_cast<double>(s.high))},
          {"gradient", s.mean(s.gradient)},
          {"sigmoid_gradient", s.mean(s.sigmoid_gradient)},
          {"sigmoid_gradient_at_value", s.mean(s.sigmoid_gradient_at_value)},
          {"mean_log_decay", layer.mean_log_decay},
          {"memory_tokens", memory_json(memory_length(layer))}};
}

std::string gate_sentence(const LayerGates& layer) {
  const GateStatistics& s = layer.gates;
  return "mean " + rounded(s.mean(s.sum), 4) + "  std " + rounded(s.deviation(), 4) + "  <0.05 " +
         percent(s.mean(static_cast<double>(s.low))) + "  >0.95 " +
         percent(s.mean(static_cast<double>(s.high))) + "  |dF/dz_g| " +
         rounded(s.mean(s.gradient), 3) + " (g(1-g) " + rounded(s.mean(s.sigmoid_gradient), 3) +
         ", F(1-F) " + rounded(s.mean(s.sigmoid_gradient_at_value), 3) + ")  memory " +
         memory_text(memory_json(memory_length(layer)));
}

std::vector<std::string> labels_of(const std::vector<std::string>& runs) {
  std::vector<std::string> labels;
  for (const std::string& run : runs) {
    const fs::path path = fs::path(run).lexically_normal();
    std::string name =
        printable((path.has_filename() ? path.filename() : path.parent_path().filename()).string());
    // What gnuplot takes for more than a character in a CSV.
    for (char& c : name) {
      if (std::string_view("\"\\,#").find(c) != std::string_view::npos) c = '_';
    }
    std::string label = name;
    for (int i = 2; std::find(labels.begin(), labels.end(), label) != labels.end(); ++i) {
      label = name + " (" + std::to_string(i) + ")";
    }
    labels.push_back(label);
  }
  return labels;
}

}  // namespace regla::app
