#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core/random.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/process.h"
#include "tests/temporary_folder.h"

// What the tests of the program share. REGLA_PROGRAM is its path.
namespace regla::test {

inline std::vector<std::string> command(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), REGLA_PROGRAM);
  return arguments;
}

/// Runs the program to its end.
inline Outcome regla(const std::vector<std::string>& arguments) {
  return Process(command(arguments)).wait();
}

/// Runs it and expects one line of error and exit code 2. Returns the line.
inline std::string refused(const std::vector<std::string>& arguments) {
  const Outcome outcome = regla(arguments);
  CAPTURE(arguments, outcome.out, outcome.err);
  CHECK(outcome.code == 2);
  CHECK(outcome.err.starts_with("regla: error: "));
  CHECK(outcome.err.find('\n') + 1 == outcome.err.size());
  return outcome.err;
}

inline bool has_gnuplot() { return std::system("command -v gnuplot >/dev/null 2>&1") == 0; }

/// Lines of words, with a document's title now and then.
inline std::string some_text(int64_t lines, uint64_t seed) {
  static const char* const kWords[] = {
      "the",   "gate", "of",   "a", "state", "decays", "slowly", "and", "m\xc3\xa9moire",
      "stays", "in",   "1901", ",", ".",     "<unk>"};
  const Random random(seed, 6);
  std::string text;
  for (int64_t line = 0; line < lines; ++line) {
    if (line % 9 == 0) text += "\n = Title " + std::to_string(line) + " = \n\n";
    for (uint64_t word = 0; word < 8; ++word) {
      const auto draw = random.words(static_cast<uint64_t>(line) * 8 + word)[0];
      text += " " + std::string(kWords[draw % std::size(kWords)]);
    }
    text += " \n";
  }
  return text;
}

const char* const kTinyConfig = R"({"steps": 100, "batch_size": 4, "learning_rate": 0.003,
    "tokenizer": "byte", "log_every": 1, "eval_every": 0, "checkpoint_every": 50, "layers": 2,
    "hidden": 32, "heads": 2, "mlp": 64, "dropout": 0.1, "sequence_length": 32})";

/// A folder with a corpus, a configuration and room for runs; tokens are cached inside.
class Workshop {
 public:
  Workshop() {
    std::filesystem::create_directory(folder_ / "data");
    write_file(folder_ / "data/t.train.txt", some_text(170, 1));
    write_file(folder_ / "data/t.valid.txt", some_text(20, 2));
    write_file(folder_ / "data/t.test.txt", some_text(20, 3));
    write_file(folder_ / "config.json", kTinyConfig);
    ::setenv("REGLA_CACHE", (folder_ / "cache").c_str(), 1);
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
  }

  std::string operator/(const std::string& name) const { return (folder_ / name).string(); }

  /// The arguments of a training into `run`, with these after them.
  std::vector<std::string> train(const std::string& run, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {
        "train", "--config", *this / "config.json", "--data", *this / "data", "--out", *this / run};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace regla::test
