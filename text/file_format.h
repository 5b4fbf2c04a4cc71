#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace regla {

/// What the first bytes of a file say it is.
struct FileFormat {
  enum class Kind : uint8_t {
    Text,  // UTF-8, or bytes of unknown meaning
    Gzip,
    Xz,
    Filtered,  // something that `command`, as a filter, turns into text
    Archive    // something that `command`, given the file, unpacks
  };
  Kind kind = Kind::Text;
  std::string_view name = "text";
  std::string_view command;
};

/// Recognises packed files (gzip, xz, bzip2, zstd, zip, tar, ...) by their signatures, and UTF-16
/// and UTF-32 by a byte order mark or else by what their first 64 KiB are: text when read so, and
/// full of zeros, control characters or invalid bytes when read as UTF-8. Everything else is text.
FileFormat format_of(std::string_view bytes);

/// The length of the ending, such as `.gz`, that a packed file's name has; 0 without one.
size_t packed_ending(std::string_view name);

/// The shell command that makes text of the file at `path`.
std::string command_for(const FileFormat& format, const std::string& path);

}  // namespace regla
