#pragma once

#include <string>

#include "tests/catch.h"

namespace regla {

// The two names that Catch2 2 and 3 spell differently.
#if CATCH_VERSION_MAJOR >= 3
using Catch::Approx;
inline auto Contains(const std::string& part) { return Catch::Matchers::ContainsSubstring(part); }
#else
using ::Approx;
inline auto Contains(const std::string& part) { return Catch::Matchers::Contains(part); }
#endif

}  // namespace regla
