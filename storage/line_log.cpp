#include "storage/line_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSizeLimit = uint64_t{1} << 32;  // twenty million lines

struct stat status_of(const Descriptor& file, const fs::path& path) {
  struct stat status {};
  check(::fstat(file.get(), &status) == 0, "[log] cannot write ", path.string());
  return status;
}

/// Calls `f` for every whole line, without its end.
template <class F>
void for_each_line(std::string_view text, F&& f) {
  for (size_t start = 0, end; (end = text.find('\n', start)) != text.npos; start = end + 1) {
    f(text.substr(start, end - start));
  }
}

}  // namespace

LineLog::LineLog(const fs::path& path, const std::function<bool(std::string_view)>& keeps)
    : path_(path) {
  const auto open = [&] { return open_file(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW); };
  file_ = open();
  const std::string text = read_file(path, kSizeLimit);
  std::string kept;
  for_each_line(text, [&](std::string_view line) {
    if (keeps(line)) kept.append(line) += '\n';
  });
  if (kept.size() == text.size() && status_of(file_, path).st_nlink == 1) return;
  write_file(path, kept);
  file_ = open();
}

void LineLog::append(std::string line) {
  line += '\n';
  const struct stat before = status_of(file_, path_);
  ssize_t written;
  do {
    written = ::write(file_.get(), line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;
  const int error = written < 0 ? errno : ENOSPC;
  const bool cut = ::ftruncate(file_.get(), before.st_size) == 0;
  fail("[log] cannot write ", path_.string(), ": ", std::strerror(error),
       cut ? "" : "; its last line is cut off");
}

std::vector<std::string> read_lines(const fs::path& path) {
  std::vector<std::string> lines;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return lines;
  for_each_line(read_file(path, kSizeLimit),
                [&](std::string_view line) { lines.emplace_back(line); });
  return lines;
}

}  // namespace regla
