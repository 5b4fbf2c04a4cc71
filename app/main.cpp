#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <new>

#include "app/arguments.h"
#include "app/command.h"
#include "app/start.h"
#include "core/parallel.h"
#include "core/processors.h"
#include "training/trainer.h"

namespace regla::app {
namespace {

/// One line on standard error, whatever the message holds.
int report(std::string message, int code) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "regla: error: %s\n", message.c_str());
  return code;
}

int run(int argc, char** argv) {
  CLI::App program{"Trains and runs ReGLA (refined gated linear attention) language models.",
                   "regla"};
  program.set_version_flag("--version", REGLA_VERSION);
  program.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_eval, add_generate, add_logits, add_inspect, add_analyse,
                         add_tokenizer, add_bench, add_devices, add_completion}) {
    add(program, action);
  }
  try {
    parse_arguments(program, {argv + std::min(argc, 1), argv + argc});
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // help and version
    return report(error.what(), kBadInput);
  }
  set_threads(default_threads().threads);
  const int code = action();
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "cannot write to standard output");
  return code;
}

}  // namespace
}  // namespace regla::app

int main(int argc, char** argv) {
  using namespace regla::app;
  end_start();
  try {
    return run(argc, argv);
  } catch (const regla::DivergedError& error) {
    return report(error.what(), kFailed);
  } catch (const regla::Error& error) {
    return report(error.what(), kBadInput);
  } catch (const std::filesystem::filesystem_error& error) {
    return report(error.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}
