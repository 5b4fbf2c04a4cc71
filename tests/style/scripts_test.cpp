// What the scripts must do on any machine, tried with programs that stand in for the system's.

#include <filesystem>
#include <regex>
#include <sstream>
#include <string>

#include "storage/files.h"
#include "tests/catch.h"
#include "tests/matchers.h"
#include "tests/process.h"
#include "tests/temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using regla::Contains;
using regla::TemporaryFolder;
using regla::test::Outcome;
using regla::test::Process;

/// Runs bash in the root of the repository with the folder's `bin` before the system's programs.
Outcome bash(const TemporaryFolder& folder, const std::string& code) {
  const std::string path = (folder / "bin").string();
  return Process({"/bin/bash", "-euo", "pipefail", "-c",
                  "cd '" REGLA_SOURCE_DIR "'; PATH='" + path + "':$PATH; tmp='" +
                      folder.path().string() + "'; " + code})
      .wait();
}

void stand_in(const TemporaryFolder& folder, const std::string& name, const std::string& code) {
  fs::create_directories(folder / "bin");
  const fs::path file = folder / "bin" / name;
  regla::write_file(file, "#!/bin/bash\n" + code);
  fs::permissions(file, fs::perms::owner_all);
}

/// A release that has these packages beside the common ones.
Outcome install(const std::string& known, const std::string& options = "") {
  const TemporaryFolder folder;
  stand_in(folder, "dpkg-query", "exit 1\n");
  stand_in(folder, "sudo", "exec \"$@\"\n");
  stand_in(folder, "gnuplot", "exit 0\n");
  stand_in(folder, "apt-get", "if [[ $* == *install* ]]; then echo \"apt-get $*\"; fi\n");
  // As long as a pipe that is closed early would not survive.
  stand_in(
      folder, "apt-cache",
      "[[ $1 == show ]] || { echo '  Depends: clang-19'; exit; }\n"
      "case $2 in libdnnl-dev | libonednn-dev | clang-format-14 | libclang-rt-dev)\n"
      "  [[ ' " +
          known +
          " ' == *\" $2 \"* ]] || exit 100 ;;\n"
          "esac\n"
          "echo \"Package: $2\"\n"
          "for ((i = 0; i < 4000; ++i)); do echo \"a line of its description, number $i\"; done\n");
  return bash(folder, "scripts/install_dependencies.sh " + options);
}

/// What apt-get was asked to install.
std::string installed(const Outcome& outcome) {
  const size_t at = outcome.out.find("apt-get ");
  return at == std::string::npos ? "nothing" : outcome.out.substr(at);
}

}  // namespace

TEST_CASE("a package is installed under the name that the release has") {
  for (int i = 0; i < 5; ++i) {
    const Outcome outcome = install("libdnnl-dev libonednn-dev");
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.code == 0);
    CHECK_THAT(installed(outcome), Contains(" libdnnl-dev "));
  }
  CHECK_THAT(installed(install("libonednn-dev")), Contains(" libonednn-dev "));
  CHECK_THAT(installed(install("libdnnl-dev libclang-rt-dev", "--dev")),
             Contains(" libclang-rt-dev "));
  CHECK_THAT(installed(install("libdnnl-dev", "--dev")), Contains(" libclang-rt-19-dev "));
}

TEST_CASE("a release without the formatter of this project installs all else, and says so") {
  const Outcome outcome = install("libdnnl-dev libclang-rt-dev", "--dev");
  CHECK(outcome.code == 0);
  CHECK_THAT(outcome.out, Contains("no clang-format-14"));
  CHECK_THAT(installed(outcome), !Contains(" clang-format-14 "));
  CHECK_THAT(installed(install("libdnnl-dev libclang-rt-dev clang-format-14", "--dev")),
             Contains(" clang-format-14 "));
}

TEST_CASE("no script pipes into a reader that may stop early") {
  // Under pipefail the writer's SIGPIPE is a failure, now and then.
  const std::regex early(R"(\|\s*(grep\s+-\w*[qm]|head\b|sed\s+-n\s+\S*q\b|awk[^|]*\bexit\b[^(]))");
  CHECK(std::regex_search("apt-cache show x | grep -q y", early));
  int read = 0;
  for (const char* folder : {"scripts", ".ci", "benchmarks"}) {
    for (const auto& entry : fs::directory_iterator(fs::path(REGLA_SOURCE_DIR) / folder)) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(".sh") && name != "run") continue;
      ++read;
      std::istringstream lines(regla::read_file(entry.path()));
      for (std::string line; std::getline(lines, line);) {
        // Allowed where the writer's failure is caught: `{ ... || true; } | head`.
        if (line.find("|| true; }") != std::string::npos) continue;
        if (std::regex_search(line, early)) FAIL_CHECK(name << ": " << line);
      }
    }
  }
  CHECK(read > 5);
}

TEST_CASE("scripts compute with a decimal point and print commands that can be pasted") {
  const TemporaryFolder folder;
  const Outcome outcome = bash(folder,
                               "export LC_ALL=de_DE.UTF-8; . scripts/common.sh; echo \"$LC_ALL\"; "
                               "awk 'BEGIN { print 1 / 2 }'; "
                               "command_line regla --data \"/tmp/a b/ü'x\" '$y'");
  CHECK(outcome.code == 0);
  CHECK(outcome.out == "C.UTF-8\n0.5\nregla --data /tmp/a\\ b/ü\\'x \\$y\n");
}

TEST_CASE("scripts explain themselves") {
  const TemporaryFolder folder;
  for (const std::string name : {"demo", "test", "fresh", "sanitize_cuda"}) {
    const Outcome outcome = bash(folder, "scripts/" + name + ".sh --help");
    CHECK(outcome.code == 0);
    CHECK_THAT(outcome.out, Contains("scripts/" + name + ".sh ["));
  }
}

TEST_CASE("the demo's text is the beginning of the text, by whole lines, packed or not") {
  const TemporaryFolder folder;
  const Outcome outcome =
      bash(folder,
           ". scripts/common.sh; . scripts/text.sh; mkdir \"$tmp/d\"; "
           "for i in {1000..1999}; do echo \"zeile $i ä\"; done >\"$tmp/all.txt\"; "
           "gzip -k \"$tmp/all.txt\"; "
           "for f in all.txt all.txt.gz; do "
           "cut_text \"$tmp/$f\" 30 \"$tmp/cut\" || echo part; cat \"$tmp/cut\"; "
           "done; cut_text \"$tmp/all.txt.gz\" 99999 \"$tmp/cut\" && "
           "cmp \"$tmp/cut\" \"$tmp/all.txt\" && echo whole; "
           "split_text \"$tmp/all.txt\" \"$tmp/d\" 99999 99999; "
           "cat \"$tmp/d\"/{train,valid,test}.txt | cmp - \"$tmp/all.txt\"; "
           "wc -l <\"$tmp/d/test.txt\"");
  const std::string two = "part\nzeile 1000 ä\nzeile 1001 ä\n";
  CHECK(outcome.err == "");
  CHECK(outcome.out == two + two + "whole\n50\n");
}

TEST_CASE("the counts' bits per byte are those of their definition") {
  const TemporaryFolder folder;
  regla::write_file(folder / "train", "0\n1\n0\n1\n0\n2\n");
  regla::write_file(folder / "test", "0\n1\n2\n");
  const Outcome outcome =
      bash(folder, "awk -v bytes=2 -f scripts/counts.awk \"$tmp/train\" \"$tmp/test\"");
  // Unigrams 4/9, 3/9, 2/9. Pairs 01 and 10 twice, 02 once: discount 1 / 5; after 0: 3 seen, 2
  // kinds; after 1: 2 seen, 1 kind. -log2 of 4/9, 1.8/3 + .4/3 * 3/9, 0.1 * 2/9.
  CHECK(outcome.out == "2.462 3.648\n");
}
