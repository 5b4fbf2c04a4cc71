#include "app/program.h"

#include <cstdio>

#include "app/arguments.h"
#include "core/parallel.h"
#include "core/processors.h"

namespace regla::app {

int run_command(const std::vector<std::string>& words) {
  CLI::App program{"Trains and runs ReGLA (refined gated linear attention) language models.",
                   "regla"};
  program.set_version_flag("--version", REGLA_VERSION);
  program.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_eval, add_generate, add_logits, add_inspect, add_analyse,
                         add_reproduce, add_report, add_tokenizer, add_import, add_export,
                         add_linearise, add_bench, add_devices, add_completion}) {
    add(program, action);
  }
  try {
    parse_arguments(program, words);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // help and version
    fail(error.what());
  }
  set_threads(default_threads().threads);
  const int code = action();
  if (code != 0) return code;  // and one line about it
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "cannot write to standard output");
  return code;
}

}  // namespace regla::app
