// Test cases of every outcome, and names that mean something to a shell, to CMake or to Catch2.
// registration_test.cpp runs them; ctest does not.

#include "tests/catch.h"

static bool ran(const char* name) { return Catch::getResultCapture().getCurrentTestName() == name; }

TEST_CASE("asserts nothing") {}
TEST_CASE("asserts nothing in a section") {
  SECTION("first") { CHECK(ran("asserts nothing in a section")); }
  SECTION("second") {}
}
TEST_CASE("is skipped") { regla::test::skip("there is no moon"); }
TEST_CASE("fails after it was skipped") {
  regla::test::skip("there is no moon");
  CHECK(ran("something else"));
}
TEST_CASE("fails 77 times") {
  for (int i = 0; i < 77; ++i) CHECK(ran("something else"));
}
TEST_CASE("exclude:this") { CHECK(ran("exclude:this")); }
TEST_CASE("differs in capitals") { CHECK(ran("differs in capitals")); }
TEST_CASE("Differs in Capitals") { CHECK(ran("Differs in Capitals")); }

#define NAMED(name) \
  TEST_CASE(name) { CHECK(ran(name)); }
NAMED("passes")
NAMED("[0, 1) is half open; so is (0, 1]")
NAMED("an opening [ stays open")
NAMED("~ first, \"quoted\", 'quoted' and C:\\temp\\")
NAMED("no exclude:, $HOME ${HOME} $ENV{HOME} @HOME@ # %d")
NAMED("[tag]")
NAMED("a; b;; [c; ]d")
NAMED("na\xC3\xAFve \xE2\x88\x9E")
