#pragma once

#include <string>
#include <string_view>

namespace regla {

/// The SHA-256 of bytes (FIPS 180-4) as 64 hexadecimal digits, as `sha256sum` prints it.
std::string sha256(std::string_view bytes);

}  // namespace regla
