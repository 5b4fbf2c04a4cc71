#include "training/metrics.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <ctime>
#include <fstream>
#include <limits>

#include "core/check.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"
#include "training/progress.h"
#include "training/schedule.h"

namespace regla {
namespace {

StepMetrics at_step(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 1.5;
  return metrics;
}

std::string line_of(int64_t step) {
  return "{\"step\":" + std::to_string(step) +
         ",\"tokens\":0,\"loss\":1.5,\"lr\":0.0,\"grad_norm\":0.0,\"tokens_per_s\":0.0,"
         "\"gflops\":0.0,\"elapsed_s\":0.0}\n";
}

/// What `f` writes into the file it gets.
template <class F>
std::string written_by(F&& f) {
  std::FILE* file = std::tmpfile();
  f(file);
  std::string text(static_cast<size_t>(std::ftell(file)), ' ');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("metrics are lines of JSON") {
  const TemporaryFolder folder;
  MetricsLog log(folder / "m", -1, -1);
  log.append(at_step(1));
  CHECK(read_file(folder / "m") == line_of(1));
  EvalMetrics eval;
  eval.step = 1;
  eval.split = "valid";
  eval.ppl = std::numeric_limits<double>::infinity();
  log.append(eval);
  CHECK(read_file(folder / "m") ==
        line_of(1) +
            "{\"step\":1,\"tokens\":0,\"elapsed_s\":0.0,\"split\":\"valid\",\"loss\":0.0,"
            "\"ppl\":null,\"word_ppl\":0.0,\"bits_per_byte\":0.0}\n");
}

TEST_CASE("metrics after the step of a resume are dropped") {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder / "m", -1, -1);
    for (int64_t step = 1; step <= 4; ++step) log.append(at_step(step));
  }
  std::ofstream(folder / "m", std::ios::app) << "{\"step\": 2, \"los";
  {
    MetricsLog log(folder / "m", 2, -1);
    log.append(at_step(3));
  }
  CHECK(read_file(folder / "m") == line_of(1) + line_of(2) + line_of(3));
  MetricsLog fresh(folder / "m", -1, -1);
  CHECK(read_file(folder / "m").empty());
}

TEST_CASE("a validation that no checkpoint knows of is dropped, the ones before are not") {
  const TemporaryFolder folder;
  const auto validation = [](int64_t step) {
    EvalMetrics eval;
    eval.step = step;
    eval.split = "valid";
    return eval;
  };
  std::string before;
  {
    MetricsLog log(folder / "m", -1, -1);
    log.append(at_step(1));
    log.append(validation(1));
    log.append(at_step(2));
    before = read_file(folder / "m");
    log.append(validation(2));
  }
  MetricsLog log(folder / "m", 2, 1);
  CHECK(read_file(folder / "m") == before);
}

TEST_CASE("a line of metrics with very many keys takes no time to drop") {
  const TemporaryFolder folder;
  std::string line = "{\"step\":9";
  for (int i = 0; i < 200000; ++i) line += ",\"k" + std::to_string(i) + "\":1";
  write_file(folder / "m", line_of(1) + line + "}\n" + std::string(100000, '[') + "\n");
  const std::clock_t start = std::clock();
  MetricsLog log(folder / "m", 2, -1);
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 3);
  CHECK(read_file(folder / "m") == line_of(1));
}

TEST_CASE("a full disk leaves whole lines of metrics") {
  const TemporaryFolder folder;
  MetricsLog log(folder / "m", -1, -1);
  log.append(at_step(1));
  {
    const FullDisk full(line_of(1).size() + 10);
    CHECK_THROWS_AS(log.append(at_step(2)), Error);
  }
  CHECK(read_file(folder / "m") == line_of(1));
  log.append(at_step(2));
  CHECK(read_file(folder / "m") == line_of(1) + line_of(2));
  CHECK_THROWS_AS(MetricsLog(folder / "no/m", -1, -1), Error);
}

TEST_CASE("the progress line") {
  CHECK(progress_line({120, 2000, 4.3211, 12345.4, 45.61, 201}) ==
        "step 120/2000  loss 4.321  12,345 tok/s  45.6 GFLOP/s  3:21 left");
  CHECK(progress_line({1, 2, std::nan(""), 999, 0, -1}) ==
        "step 1/2  loss nan  999 tok/s  0.0 GFLOP/s");
  CHECK(progress_line({1, 2, 1, 1234567, 0, 3661}) ==
        "step 1/2  loss 1.000  1,234,567 tok/s  0.0 GFLOP/s  1:01:01 left");
}

TEST_CASE("progress takes one line of a narrow terminal") {
  const std::string line = progress_line({120, 2000, 4.3211, 12345.4, 45.61, 201});
  CHECK(fitted(line, static_cast<int>(line.size()) + 1) == line);
  CHECK(fitted(line, static_cast<int>(line.size())) ==
        "step 120/2000  loss 4.321  12,345 tok/s  45.6 GFLOP/s");
  CHECK(fitted(line, 30) == "step 120/2000  loss 4.321");
  CHECK(fitted(line, 10) == "step 120/");
  CHECK(fitted(line, 1).empty());
  CHECK(fitted(line, 0).empty());
  // A terminal of its own, whose size anyone may set.
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(terminal >= 0);
  std::FILE* file = ::fdopen(terminal, "r+");
  for (const int columns : {7, 20, 40, 200}) {
    const winsize size = {24, static_cast<unsigned short>(columns), 0, 0};
    REQUIRE(::ioctl(terminal, TIOCSWINSZ, &size) == 0);
    CHECK(columns_of(file) == columns);
  }
  ::setenv("COLUMNS", "30", 1);
  CHECK(columns_of(file) == 30);
  CHECK_THAT(written_by([&](std::FILE* out) {
               Progress(out, true).update({120, 2000, 4.3211, 12345.4, 45.61, 201}, false);
             }),
             Contains("\rstep 120/2000  loss 4.321\033[K"));
  ::setenv("COLUMNS", "many", 1);
  CHECK(columns_of(file) == 200);
  ::unsetenv("COLUMNS");
  std::fclose(file);
}

TEST_CASE("progress is plain lines in a file and one live line on a terminal") {
  const ProgressState first{1, 2, 1, 0, 0, -1}, second{2, 2, 1, 0, 0, -1};
  const std::string one = progress_line(first), two = progress_line(second);
  CHECK(written_by([&](std::FILE* file) {
          Progress progress(file);
          progress.update(first, true);
          progress.update(second, false);
          progress.note("done");
        }) == one + "\ndone\n");
  CHECK(written_by([&](std::FILE* file) {
          Progress progress(file, true);
          progress.update(first, false);
          progress.note("valid 3.2");
          progress.update(second, false);  // within a tenth of a second: shown at the end only
        }) == "\r" + one + "\033[K\r\033[Kvalid 3.2\n\r" + one + "\033[K\r" + two + "\033[K\n");
}

TEST_CASE("schedules") {
  TrainingConfig config;
  config.steps = 110;
  config.warmup_steps = 10;
  config.learning_rate = 2;
  config.final_learning_rate = 0.5;
  CHECK(learning_rate_at(config, 0) == Approx(0.2));
  CHECK(learning_rate_at(config, 9) == Approx(2));
  CHECK(learning_rate_at(config, 100) == Approx(2));
  config.schedule = Schedule::Linear;
  CHECK(learning_rate_at(config, 10) == Approx(2));
  CHECK(learning_rate_at(config, 60) == Approx(1.5));
  CHECK(learning_rate_at(config, 110) == Approx(1));
  CHECK(learning_rate_at(config, 500) == Approx(1));
  config.schedule = Schedule::Cosine;
  CHECK(learning_rate_at(config, 10) == Approx(2));
  CHECK(learning_rate_at(config, 35) == Approx(1 + (1 + std::sqrt(0.5)) / 2));
  CHECK(learning_rate_at(config, 110) == Approx(1));
  config.warmup_steps = 0;
  config.steps = 0;
  CHECK(learning_rate_at(config, 0) == Approx(2));
}

}  // namespace regla
