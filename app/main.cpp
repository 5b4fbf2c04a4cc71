#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <system_error>

#include "app/command.h"
#include "core/allocator.h"
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

/// Threads of libgomp spin for a long time while they wait, and on a machine with other work they
/// starve each other: training ran at a tenth of its speed. A short spin costs nothing when the
/// machine is idle. libgomp reads the setting before main, so the program starts itself once more.
void limit_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "10000", 1);
  ::execv("/proc/self/exe", argv);  // returns only where it cannot: then it is only slower
}

int run(int argc, char** argv) {
  CLI::App program{"Trains and runs ReGLA (refined gated linear attention) language models.",
                   "regla"};
  program.set_version_flag("--version", REGLA_VERSION);
  program.require_subcommand(1);
  Action action;
  for (const auto add : {add_train, add_eval, add_generate, add_logits, add_inspect, add_analyse,
                         add_tokenizer, add_bench, add_devices}) {
    add(program, action);
  }
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // help and version
    return report(error.what(), kBadInput);
  }
  const int code = action();
  if (code != 0) return code;  // and one line about it
  check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "cannot write to standard output");
  return code;
}

}  // namespace
}  // namespace regla::app

int main(int argc, char** argv) {
  using namespace regla::app;
  open_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file at the limit of its size is then an error of writing
  limit_spinning(argv);
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
