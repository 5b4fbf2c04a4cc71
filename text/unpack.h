#pragma once

#include <string>

namespace regla {

/// The bytes of a file, unpacked if its name ends in `.xz` or `.gz`. Errors name the path: a file
/// that cannot be read, and packed data that is corrupt or incomplete.
std::string read_unpacked(const std::string& path);

}  // namespace regla
