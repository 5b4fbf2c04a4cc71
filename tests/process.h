#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/catch.h"

namespace regla::test {

/// How a program ended and what it wrote.
struct Outcome {
  int code = 0;  // 128 + the signal for one that was killed
  std::string out, err;
};

/// A program that runs beside the test.
class Process {
 public:
  /// `prepare` runs in the child before the program does, with all signals as they usually are,
  /// whatever this process and its parents ignore.
  explicit Process(std::vector<std::string> arguments, const std::function<void()>& prepare = {}) {
    int out[2], err[2];
    REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
    REQUIRE(::pipe2(err, O_CLOEXEC) == 0);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    id_ = ::fork();
    if (id_ == 0) {
      ::dup2(out[1], 1);
      ::dup2(err[1], 2);
      usual_signals();
      if (prepare) prepare();
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    ::close(err[1]);
    pipes_[0] = {out[0], POLLIN, 0};
    pipes_[1] = {err[0], POLLIN, 0};
  }
  ~Process() {
    if (id_ <= 0) return;
    kill(SIGKILL);
    wait();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t id() const { return id_; }
  void kill(int signal) { ::kill(id_, signal); }

  /// Reads what it writes for at most some milliseconds; false once it has closed both streams.
  bool read(int milliseconds) {
    if (pipes_[0].fd < 0 && pipes_[1].fd < 0) return false;
    if (::poll(pipes_, 2, milliseconds) <= 0) return true;
    for (int i = 0; i < 2; ++i) {
      if (pipes_[i].revents == 0) continue;
      char bytes[4096];
      const ssize_t count = ::read(pipes_[i].fd, bytes, sizeof bytes);
      if (count > 0) {
        (i == 0 ? outcome_.out : outcome_.err).append(bytes, static_cast<size_t>(count));
      } else {
        ::close(pipes_[i].fd);
        pipes_[i].fd = -1;
      }
    }
    return pipes_[0].fd >= 0 || pipes_[1].fd >= 0;
  }

  /// Lets what it writes from now on have no reader.
  void close_streams() {
    for (pollfd& pipe : pipes_) {
      if (pipe.fd >= 0) ::close(pipe.fd);
      pipe.fd = -1;
    }
  }

  const Outcome& so_far() const { return outcome_; }

  Outcome wait() {
    while (read(-1)) {
    }
    int status = 0;
    ::waitpid(std::exchange(id_, -1), &status, 0);
    outcome_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return outcome_;
  }

 private:
  static void usual_signals() {
    for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ})
      std::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
  }

  pid_t id_ = -1;
  pollfd pipes_[2];
  Outcome outcome_;
};

}  // namespace regla::test
