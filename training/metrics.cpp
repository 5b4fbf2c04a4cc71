#include "training/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "storage/json_fields.h"

namespace regla {
namespace {

constexpr uint64_t kSizeLimit = uint64_t{1} << 32;  // twenty million lines

struct stat status_of(const Descriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  check(::fstat(file.get(), &status) == 0, "[metrics] cannot write ", path.string());
  return status;
}

/// Whether a line is whole and about a step up to the last, of training or of validation.
bool is_kept(std::string_view line, int64_t last_step, int64_t last_validation) {
  try {
    const Json object = parse_json(line, "[metrics]");
    if (!object.is_object()) return false;
    const auto step = object.find("step");
    return step != object.end() && step->is_number_integer() &&
           step->get<int64_t>() <= (object.contains("split") ? last_validation : last_step);
  } catch (const Error&) {
    return false;
  }
}

std::string kept_lines(std::string_view text, int64_t last_step, int64_t last_validation) {
  std::string kept;
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);
    if (end == std::string_view::npos) break;
    if (is_kept(text.substr(start, end - start), last_step, last_validation)) {
      kept += text.substr(start, end - start + 1);
    }
    start = end + 1;
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t last_step,
                       int64_t last_validation)
    : path_(path) {
  const auto open = [&] { return open_file(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW); };
  file_ = open();
  const std::string text = read_file(path, kSizeLimit);
  const std::string kept = kept_lines(text, last_step, last_validation);
  if (kept.size() == text.size() && status_of(file_, path).st_nlink == 1) return;
  write_file(path, kept);
  file_ = open();
}

void MetricsLog::append(const StepMetrics& metrics) {
  Json line = write_fields(metrics);
  if (!metrics.objective.empty()) line["objective"] = metrics.objective;
  for (const auto& [name, value] : metrics.numbers) line[name] = value;
  append_line(dumped(line));
}
void MetricsLog::append(const EvalMetrics& metrics) { append_line(dumped(write_fields(metrics))); }

void MetricsLog::append_line(std::string line) {
  line += '\n';
  const struct stat before = status_of(file_, path_);
  ssize_t written;
  do {
    written = ::write(file_.get(), line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;
  const int error = written < 0 ? errno : ENOSPC;
  const bool cut = ::ftruncate(file_.get(), before.st_size) == 0;
  fail("[metrics] cannot write ", path_.string(), ": ", std::strerror(error),
       cut ? "" : "; its last line is cut off");
}

}  // namespace regla
