#include "training/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "core/numbers.h"

namespace regla {
namespace {

std::string fixed(double value, int digits) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : "inf";
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// 12345.6 as 12,346, for numbers of at least 0.
std::string with_commas(double value) {
  const std::string digits = fixed(value, 0);
  if (!std::isfinite(value)) return digits;
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

/// 3:21 or 1:03:21.
std::string duration(double seconds) {
  const auto total = static_cast<int64_t>(seconds + 0.5);
  char text[64];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02d:%02d", static_cast<long long>(total / 3600),
                  static_cast<int>(total / 60 % 60), static_cast<int>(total % 60));
  } else {
    std::snprintf(text, sizeof text, "%d:%02d", static_cast<int>(total / 60),
                  static_cast<int>(total % 60));
  }
  return text;
}

}  // namespace

std::string progress_line(const ProgressState& state) {
  std::string line = "step " + std::to_string(state.step) + "/" + std::to_string(state.steps) +
                     "  " + state.loss_name + " " + fixed(state.loss, 3) + "  " +
                     with_commas(state.tokens_per_s) + " tok/s  " + fixed(state.gflops, 1) +
                     " GFLOP/s";
  if (state.seconds_left >= 0 && state.seconds_left < 1e12) {
    line += "  " + duration(state.seconds_left) + " left";
  }
  return line;
}

std::string fitted(const std::string& line, int columns) {
  // The last column stays empty: some terminals go on to the next line as soon as it is written.
  const auto room = static_cast<size_t>(std::max(columns - 1, 0));
  if (line.size() <= room) return line;
  const size_t gap = line.rfind("  ", room);
  return line.substr(0, gap == line.npos ? room : gap);
}

int columns_of(std::FILE* out) {
  winsize size{};
  const bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const char* said = std::getenv("COLUMNS");
  const std::optional<int64_t> wanted = said != nullptr ? parse_integer(said) : std::nullopt;
  const int columns = known ? size.ws_col : 80;
  if (!wanted || *wanted < 1) return columns;
  return static_cast<int>(known ? std::min<int64_t>(columns, *wanted)
                                : std::min<int64_t>(*wanted, 10000));
}

Progress::Progress(std::FILE* out) : Progress(out, ::isatty(::fileno(out)) == 1) {}

void Progress::rewrite(const std::string& line) {
  // Back to the first column; after the text, clear the rest of the older line.
  std::fprintf(out_, "\r%s\033[K", fitted(line, columns_of(out_)).c_str());
  std::fflush(out_);
  open_ = shown_ = true;
}

void Progress::update(const ProgressState& state, bool is_logged) {
  line_ = progress_line(state);
  shown_ = false;
  if (!terminal_) {
    if (!is_logged) return;
    std::fprintf(out_, "%s\n", line_.c_str());
    std::fflush(out_);
    shown_ = true;
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  rewrite(line_);
}

void Progress::note(std::string_view text) {
  std::fprintf(out_, "%s%.*s\n", open_ ? "\r\033[K" : "", static_cast<int>(text.size()),
               text.data());
  std::fflush(out_);
  open_ = false;
  if (terminal_ && !line_.empty()) rewrite(line_);
}

void Progress::finish() {
  if (!terminal_) return;
  if (!shown_ && !line_.empty()) rewrite(line_);
  if (open_) std::fputs("\n", out_);
  std::fflush(out_);
  open_ = false;
  line_.clear();
}

}  // namespace regla
