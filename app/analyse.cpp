#include "app/analyse.h"

namespace regla::app {

void add_analyse(CLI::App& program, Action& action) {
  CLI::App* command =
      program.add_subcommand("analyse", "The paper's analyses: tables and pictures of them");
  command->require_subcommand(1);
  for (const auto add : {add_variance, add_gate_gradient, add_gate_histogram, add_saturation}) {
    add(*command, action);
  }
}

}  // namespace regla::app
