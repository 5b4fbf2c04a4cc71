#include "app/gnuplot.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "core/check.h"
#include "storage/files.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

/// The program that PATH names. Entries that are not absolute are passed over: they would mean the
/// folder of the report, which may be anybody's.
std::optional<std::string> find_gnuplot() {
  const char* variable = std::getenv("PATH");
  const std::string path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string program = path.substr(start, end - start) + "/gnuplot";
    std::error_code error;
    if (path[start] == '/' && fs::is_regular_file(program, error) &&
        ::access(program.c_str(), X_OK) == 0) {
      return program;
    }
    start = end + 1;
  }
  return std::nullopt;
}

/// One of a child's output streams, read here.
struct Pipe {
  int read = -1, write = -1;

  Pipe() {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC) == 0, "[gnuplot] cannot make a pipe to it");
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    close(read);
    close(write);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  static void close(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

/// A script to be read from its beginning, in memory.
Descriptor in_memory(std::string_view script) {
  Descriptor file(::memfd_create("script", MFD_CLOEXEC));
  check(file &&
            ::write(file.get(), script.data(), script.size()) ==
                static_cast<ssize_t>(script.size()) &&
            ::lseek(file.get(), 0, SEEK_SET) == 0,
        "[gnuplot] no memory for a script");
  return file;
}

/// Starts gnuplot in `folder` on a script there, or on "-", which is `in`, with none of the user's
/// settings.
pid_t start(std::string program, const fs::path& folder, std::string script, int in,
            const Pipe& out, const Pipe& err) {
  std::string defaults = "-d";
  char* arguments[] = {program.data(), defaults.data(), script.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out.write, 1);
  ::posix_spawn_file_actions_adddup2(&actions, err.write, 2);
  ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawnattr_t attributes;  // signals as they are for any program
  sigset_t usual;
  sigemptyset(&usual);
  sigaddset(&usual, SIGXFSZ);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigdefault(&attributes, &usual);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t child = -1;
  const int error =
      ::posix_spawn(&child, program.c_str(), &actions, &attributes, arguments, environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  check(error == 0, "[gnuplot] cannot start ", program, ": ",
        std::generic_category().message(error));
  return child;
}

/// All that the child writes until it closes both.
std::array<std::string, 2> read_both(Pipe& out, Pipe& err) {
  Pipe::close(out.write);
  Pipe::close(err.write);
  std::array<std::string, 2> text;
  pollfd ends[] = {{out.read, POLLIN, 0}, {err.read, POLLIN, 0}};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (::poll(ends, 2, -1) < 0) continue;  // interrupted
    for (size_t i = 0; i < 2; ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      char bytes[1 << 14];
      const ssize_t count = ::read(ends[i].fd, bytes, sizeof bytes);
      if (count > 0) text[i].append(bytes, static_cast<size_t>(count));
      if (count == 0 || (count < 0 && errno != EINTR)) ends[i].fd = -1;
    }
  }
  return text;
}

/// The last line with something in it, where gnuplot says what is wrong.
std::string last_line(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  return text.substr(text.rfind('\n') + 1);
}

/// What gnuplot makes of a script; `name` is what messages call it.
std::optional<std::string> run(const fs::path& folder, const std::string& script,
                               const Descriptor& in, const std::string& name) {
  const std::optional<std::string> program = find_gnuplot();
  if (!program) return std::nullopt;
  Pipe out, err;
  const pid_t child = start(*program, folder, script, in.get(), out, err);
  const auto [picture, messages] = read_both(out, err);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    check(errno == EINTR, "[gnuplot] lost sight of it");
  }
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "[gnuplot] failed on ", name, ": ",
        last_line(messages));
  return picture;
}

}  // namespace

bool has_gnuplot() { return find_gnuplot().has_value(); }

std::optional<std::string> drawn_file(const fs::path& folder, const std::string& script) {
  const Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return run(folder, script, nothing, (folder / script).string());
}

std::optional<std::string> drawn(std::string_view script, const std::string& name) {
  return run("/", "-", in_memory(script), name);
}

std::string gnuplot_string(std::string_view text) {
  std::string literal = "'";
  for (const char c : text) {
    if (c == '\'') literal += '\'';
    literal += c;
  }
  return literal + "'";
}

std::string gnuplot_array(const std::string& name, const std::vector<std::string>& values) {
  std::string text = "array " + name + "[" + std::to_string(values.size()) + "] = [";
  for (const std::string& value : values) text += gnuplot_string(value) + ",";
  text.back() = ']';
  return text + "\n";
}

}  // namespace regla::app
