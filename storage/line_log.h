#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "storage/files.h"

namespace regla {

/// A file of lines, as a program writes that may be killed and go on: a line is in the file as soon
/// as `append` returns.
class LineLog {
 public:
  /// Goes on with a file, or begins one: lines that `keeps` is false for, and one that was cut off,
  /// are dropped. An Error when `path` is a link or no regular file; a file that has other names as
  /// well (a copy that shares it) is replaced by one of its own.
  LineLog(const std::filesystem::path& path, const std::function<bool(std::string_view)>& keeps);

  /// Writes a line, which has no end in it. A full disk is an Error and leaves no half line.
  void append(std::string line);

 private:
  std::filesystem::path path_;
  Descriptor file_;
};

/// The lines of such a file that are whole; none where there is no file. An Error where it cannot
/// be read.
std::vector<std::string> read_lines(const std::filesystem::path& path);

}  // namespace regla
