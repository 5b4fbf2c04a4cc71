#pragma once

// Catch2 of either major version. CATCH_CONFIG_RUNNER is defined where the main program is.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

#include <string>

namespace regla::test {

/// Marks the running test case as one that cannot run here; ctest then shows it as skipped, unless
/// it fails. To be followed by `return`.
void skip(const std::string& reason);

}  // namespace regla::test
