#include <cstdlib>
#include <string>

#include "storage/files.h"
#include "tests/catch.h"
#include "training/configuration.h"

// docs/configuration.md is generated. After a change of keys, run this test once with
// REGLA_UPDATE_DOCS=1 in the environment.
TEST_CASE("docs/configuration.md lists every configuration key as it is") {
  const std::string path = std::string(REGLA_SOURCE_DIR) + "/docs/configuration.md";
  const std::string expected =
      "# Configuration\n\n"
      "A configuration is a JSON object with any of these keys; absent ones keep their defaults.\n"
      "`--set key=value` on the command line reaches all of them (`--set "
      "mixer.gate_axis=key`).\n\n" +
      regla::describe_config();
  if (std::getenv("REGLA_UPDATE_DOCS") != nullptr) regla::write_file(path, expected);
  CHECK(regla::read_file(path) == expected);
}
