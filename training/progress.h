#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace regla {

/// What a training has reached.
struct ProgressState {
  int64_t step = 0;   ///< updates done
  int64_t steps = 0;  ///< updates in all
  double loss = 0;    ///< nats per token, or what the objective's is
  double tokens_per_s = 0;
  double gflops = 0;         ///< 1e9 floating-point operations per second
  double seconds_left = -1;  ///< negative: not known yet
  std::string loss_name = "loss";
};

/// `step 120/2000  loss 4.321  12,345 tok/s  45.6 GFLOP/s  3:21 left`
std::string progress_line(const ProgressState& state);

/// A line as it fits a terminal of so many columns: whole groups of words as long as there is room.
std::string fitted(const std::string& line, int columns);
/// The columns of the terminal behind `out`: the least of what it says and of COLUMNS; 80 where
/// nobody says anything.
int columns_of(std::FILE* out);

/// Shows progress where a program asks for it: one line that is rewritten on a terminal (at most
/// ten times a second), plain lines elsewhere.
class Progress {
 public:
  /// Finds out by itself whether `out` is a terminal.
  explicit Progress(std::FILE* out);
  Progress(std::FILE* out, bool terminal) : out_(out), terminal_(terminal) {}
  /// Ends a live line, so that what follows starts on its own.
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call it after every update; `is_logged` marks those that get a plain line.
  void update(const ProgressState& state, bool is_logged);
  /// A line of its own, such as a validation's result.
  void note(std::string_view text);
  /// Leaves the last state standing and ends the live line.
  void finish();

 private:
  void rewrite(const std::string& line);

  std::FILE* out_;
  bool terminal_;
  std::string line_;    // the newest state
  bool shown_ = false;  // whether it is on the terminal
  bool open_ = false;   // whether the cursor is on the live line
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace regla
