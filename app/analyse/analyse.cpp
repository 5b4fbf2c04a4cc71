#include "app/analyse/analyse.h"

namespace regla::app {

void add_report_folder(CLI::App& command, std::string& folder) {
  add_text(command, "--out", folder, "folder for the report", "FOLDER")->required();
}

CLI::Option* add_runs(CLI::App& command, std::vector<std::string>& runs, const std::string& help) {
  return add_texts(command, "run,--run", runs, help, "FOLDER");
}

void add_analyse(CLI::App& program, Action& action) {
  CLI::App* command =
      program.add_subcommand("analyse", "The paper's analyses: tables and pictures of them");
  command->require_subcommand(1);
  for (const auto add : {add_variance, add_gate_gradient, add_gate_histogram, add_saturation}) {
    add(*command, action);
  }
}

}  // namespace regla::app
