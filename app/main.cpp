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

#include "app/program.h"
#include "app/start.h"
#include "core/memory.h"
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

}  // namespace
}  // namespace regla::app

int main(int argc, char** argv) {
  using namespace regla::app;
  end_start();
  open_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file at the limit of its size is then an error of writing
  try {
    return run_command({argv + std::min(argc, 1), argv + argc});
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
