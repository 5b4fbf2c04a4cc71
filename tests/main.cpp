// Catch2's main program with two more forms, for ctest:
//
//     test_core --ctest PREFIX PROPERTIES   writes a ctest script with an entry per test case
//     test_core --case NAME [options]       runs the test case of exactly this name
//
// An entry passes only if that one test case ran, and an assertion in each of its sections.

#include <iostream>
#include <string>
#include <vector>

#include "tests/catch.h"

#if CATCH_VERSION_MAJOR >= 3
using ListenerBase = Catch::EventListenerBase;
static const std::string& name_of(const Catch::TestCaseHandle& test) {
  return test.getTestCaseInfo().name;
}
#else
using ListenerBase = Catch::TestEventListenerBase;
static const std::string& name_of(const Catch::TestCase& test) { return test.name; }
#endif

namespace {

constexpr int kFailed = 1, kSkipped = 77;  // tests/CMakeLists.txt names the latter too

std::vector<std::string> names_run;
bool skipped = false;

class NameListener : public ListenerBase {
 public:
  using ListenerBase::ListenerBase;
  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    ListenerBase::testCaseStarting(info);
    names_run.push_back(info.name);
  }
};
CATCH_REGISTER_LISTENER(NameListener)

/// What Catch2 reads as exactly this name, whatever stands in it.
std::string quoted(const std::string& name) {
  std::string out = "\"";
  for (const char c : name) {
    if (c == '"' || c == '\\' || c == ',') out += '\\';
    out += c;
  }
  return out + '"';
}

void write_ctest_script(const std::string& program, const std::string& prefix,
                        const std::string& properties) {
  // In bracket arguments nothing has a meaning but the closing bracket.
  const auto argument = [](const std::string& text) { return " [======[" + text + "]======]"; };
  for (const auto& test : Catch::getRegistryHub().getTestCaseRegistry().getAllTests()) {
    const std::string& name = name_of(test);
    std::cout << "add_test(" << argument(prefix + name) << argument(program) << " --case"
              << argument(name) << ")\nset_tests_properties(" << argument(prefix + name)
              << " PROPERTIES " << properties << ")\n";
  }
}

int run_case(const char* program, const std::string& name, std::vector<const char*> options) {
  const std::string spec = quoted(name);
  options.insert(options.begin(), {program, spec.c_str(), "--warn", "NoAssertions"});
  const int failures = Catch::Session().run(static_cast<int>(options.size()), options.data());
  if (names_run != std::vector<std::string>{name}) {
    std::cerr << "ran " << names_run.size() << " test cases instead of \"" << name << "\"\n";
    return kFailed;
  }
  if (failures != 0) return kFailed;
  return skipped ? kSkipped : 0;
}

}  // namespace

void regla::test::skip(const std::string& reason) {
  skipped = true;
  WARN("skipped: " << reason);
  SUCCEED();
}

int main(int argc, char* argv[]) {
  const std::string form = argc > 2 ? argv[1] : "";
  if (form == "--ctest" && argc == 4) {
    write_ctest_script(argv[0], argv[2], argv[3]);
    return 0;
  }
  if (form == "--case") return run_case(argv[0], argv[2], {argv + 3, argv + argc});
  return Catch::Session().run(argc, argv);
}
