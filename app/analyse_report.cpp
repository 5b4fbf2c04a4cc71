#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "app/analyse.h"
#include "core/files.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

std::string csv_cell(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const std::string text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
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

/// Runs gnuplot on a script in `folder` and waits for it. False when it is not installed.
bool draw(const fs::path& folder, const std::string& script) {
  std::string program = "gnuplot", file = script;
  char* arguments[] = {program.data(), file.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  pid_t child = -1;
  const int error = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT || error == EACCES) return false;
  check(error == 0, "[analyse] cannot start gnuplot: error ", error);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    check(errno == EINTR, "[analyse] lost sight of gnuplot");
  }
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "[analyse] gnuplot failed on ",
        (folder / script).string());
  return true;
}

/// A string of gnuplot.
std::string gnuplot_string(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c == '\n' ? ' ' : c;
  }
  return quoted + "'";
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
  write_file(file(".json"), dumped(json, 1) + "\n");
  write_file(file(".csv"), csv(report.rows));
  const std::string head = "# Draws " + report.name + ".svg: gnuplot " + report.name +
                           ".gp\nset datafile separator ','\nset datafile columnheaders\n" +
                           "csv = '" + report.name + ".csv'\nset output '" + report.name +
                           ".svg'\n";
  write_file(file(".gp"), head + report.variables + std::string(report.script));
  print_row("numbers", file(".json") + ", " + file(".csv"));
  if (draw(path, report.name + ".gp")) {
    print_row("picture", file(".svg"));
  } else {
    print_row("picture",
              "not drawn: gnuplot is not installed (apt-get install gnuplot-nox); then "
              "run it on " +
                  file(".gp"));
  }
}

std::string gnuplot_array(const std::string& name, const std::vector<std::string>& values) {
  std::string text = "array " + name + "[" + std::to_string(values.size()) + "] = [";
  for (const std::string& value : values) text += gnuplot_string(value) + ",";
  text.back() = ']';
  return text + "\n";
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

std::string label_of(const std::string& run) {
  const fs::path path = fs::path(run).lexically_normal();
  return (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
}

}  // namespace regla::app
