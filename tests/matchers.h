#pragma once

#include <string>

#include "tests/catch.h"

namespace regla {

// What Catch2 2 and 3 spell differently.
#if CATCH_VERSION_MAJOR >= 3
inline auto Contains(const std::string& part) { return Catch::Matchers::ContainsSubstring(part); }
#else
inline auto Contains(const std::string& part) { return Catch::Matchers::Contains(part); }
#endif

}  // namespace regla
