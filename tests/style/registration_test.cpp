// ctest must run every test case, each under its own name, and count none that proves nothing.

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/process.h"

namespace {

using regla::test::Outcome;
using regla::test::Process;
using Strings = std::vector<std::string>;

Strings split(const std::string& text, char separator) {
  Strings parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

Strings sorted(Strings strings) {
  std::sort(strings.begin(), strings.end());
  return strings;
}

/// The names by Catch2's own listing, which the registration does not use.
Strings listed_by(const std::string& program) {
#if CATCH_VERSION_MAJOR >= 3
  return split(Process({program, "--list-tests", "--verbosity", "quiet"}).wait().out, '\n');
#else
  return split(Process({program, "--list-test-names-only"}).wait().out, '\n');
#endif
}

/// How a sample ends as an entry of ctest.
int code_of(const std::string& name) {
  return Process({REGLA_SAMPLE_CASES, "--case", name}).wait().code;
}

}  // namespace

TEST_CASE("ctest's entries are the test cases that the programs list") {
  const Outcome shown =
      Process({REGLA_CTEST, "--test-dir", REGLA_BINARY_DIR, "--show-only=json-v1"}).wait();
  REQUIRE(shown.code == 0);
  const auto entries = nlohmann::json::parse(shown.out).at("tests");
  size_t checked = 0;
  for (const std::string& program : split(REGLA_TEST_PROGRAMS, ':')) {
    CAPTURE(program);
    // Its entry says that it is not built, and fails.
    if (!std::filesystem::exists(program)) continue;
    const std::string prefix =
        std::filesystem::path(program).filename().string().substr(5) + ": ";  // without "test_"
    Strings run;
    for (const auto& entry : entries) {
      if (!entry.contains("command") || entry["command"][0] != program) continue;
      REQUIRE(entry["command"].size() == 3);
      CHECK(entry["command"][1] == "--case");
      run.push_back(entry["command"][2]);
      CHECK(entry["name"] == prefix + run.back());
    }
    const Strings listed = listed_by(program);
    CHECK(!listed.empty());
    CHECK(sorted(run) == sorted(listed));
    ++checked;
  }
  CHECK(checked > 0);
}

TEST_CASE("an entry passes only if its test case ran and asserted something") {
  CHECK(code_of("passes") == 0);
  CHECK(code_of("there is none of this name") == 1);
  CHECK(code_of("asserts nothing") == 1);
  CHECK(code_of("asserts nothing in a section") == 1);
  CHECK(code_of("is skipped") == 77);
  CHECK(code_of("fails after it was skipped") == 1);
  CHECK(code_of("fails 77 times") == 1);
  // Names that Catch2 can't run alone: it takes the first for its contrary, these two for one.
  CHECK(code_of("exclude:this") == 1);
  CHECK(code_of("differs in capitals") == 1);
  CHECK(code_of("Differs in Capitals") == 1);
}

TEST_CASE("[; a name that ctest, CMake and \"Catch2\" read otherwise, \\, is run under it; ]") {
  const Strings names = listed_by(REGLA_SAMPLE_CASES);
  const auto begin = std::find(names.begin(), names.end(), "passes");
  for (auto name = begin; name != names.end(); ++name) {
    CAPTURE(*name);
    CHECK(code_of(*name) == 0);
  }
  CHECK(names.end() - begin == 8);
}
