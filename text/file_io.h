#pragma once

#include <span>
#include <string>
#include <string_view>

namespace regla {

/// The bytes of a file. An Error names the path and the reason.
std::string read_bytes(const std::string& path);

/// The bytes of a file, unpacked if its name ends in `.xz` or `.gz`. Errors: what read_bytes
/// reports, and packed data that is corrupt or incomplete.
std::string read_unpacked(const std::string& path);

/// Writes the pieces one after the other to a temporary file beside `path`, brings it to the disk
/// and renames it, so that `path` is complete or as it was before. An Error names the path.
void write_atomically(const std::string& path, std::span<const std::string_view> pieces);

}  // namespace regla
