#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <system_error>

#include "app/arguments.h"
#include "app/command.h"
#include "app/start.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/processors.h"
#include "training/trainer.h"

namespace regla::app {
namespace {

/// One line on standard error, whatever the message holds.
int report(const std::string& message, int code) {
  std::fflush(stdout);
  print_line(stderr, "regla: error: " + message);
  return code;
}

/// A standard stream that is closed is /dev/null: otherwise the next file that is opened would be
/// that stream, and what is printed would land in it.
void open_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) {
      static_cast<void>(::open("/dev/null", O_RDWR));  // takes the lowest number that is free
    }
  }
}

int run(int argc, char** argv) {
  CLI::App program{"Trains and runs ReGLA (refined gated linear attention) language models.",
                   "regla"};
  program.set_version_flag("--version", REGLA_VERSION);
  program.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_eval, add_generate, add_logits, add_inspect, add_analyse,
                         add_report, add_tokenizer, add_import, add_export, add_linearise,
                         add_bench, add_devices, add_completion}) {
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
  if (code != 0) return code;  // and one line about it
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "cannot write to standard output");
  return code;
}

}  // namespace
}  // namespace regla::app

int main(int argc, char** argv) {
  using namespace regla::app;
  end_start();
  open_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file at the limit of its size is then an error of writing
  try {
    return run(argc, argv);
  } catch (const regla::DivergedError& error) {
    return report(error.what(), kFailed);
  } catch (const regla::MemoryError& error) {
    return report(error.what(), kFailed);
  } catch (const regla::Error& error) {
    return report(error.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::length_error&) {  // a container beyond what can be addressed
    return report("out of memory", kFailed);
  } catch (const std::filesystem::filesystem_error& error) {
    const bool no_memory = error.code() == std::errc::not_enough_memory;
    return report(error.what(), no_memory ? kFailed : kBadInput);
  } catch (const std::exception& error) {
    return report(error.what(), kFailed);
  }
}
