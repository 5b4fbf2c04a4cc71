#include "training/run_folder.h"

#include <sys/wait.h>

#include "core/check.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

void save(RunFolder& run, int64_t step, bool is_best = false) {
  save_checkpoint(
      run, step,
      [&](const fs::path& folder) {
        write_file(folder / "state.json", std::to_string(step));
        write_file(folder / "config.json", "{}");
      },
      is_best);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a run's root reads as its latest checkpoint") {
  const TemporaryFolder folder;
  RunFolder run = create_run(folder / "a/run");
  CHECK_FALSE(run.latest_step().has_value());
  CHECK_THROWS_WITH(checkpoint_of(run.path()), Contains("no complete checkpoint"));
  save(run, 0);
  save(run, 5);
  CHECK(read_file(run.path() / "state.json") == "5");
  CHECK(fs::read_symlink(run.path() / "latest") == "checkpoints/5");
  CHECK(fs::read_symlink(run.path() / "model.safetensors") == "latest/model.safetensors");
  CHECK(run.latest_step() == 5);
  CHECK_FALSE(run.best_step().has_value());
  CHECK(checkpoint_of(run.path()).filename() == "5");
  fs::rename(folder / "a", folder / "b");
  CHECK(read_file(folder / "b/run/state.json") == "5");
  CHECK(checkpoint_of(folder / "b/run/checkpoints/5") == folder / "b/run/checkpoints/5");
}

TEST_CASE("the last two checkpoints and the best are kept") {
  const TemporaryFolder folder;
  RunFolder run = create_run(folder / "run");
  for (int64_t step = 0; step <= 50; step += 10) save(run, step, step == 20);
  CHECK(names_in(run.path() / "checkpoints") == Names{"20", "40", "50"});
  CHECK(run.best_step() == 20);
  save(run, 60, true);
  CHECK(names_in(run.path() / "checkpoints") == Names{"50", "60"});
  save(run, 60, false);
  CHECK(run.best_step() == 60);
}

TEST_CASE("a run is neither overwritten nor invented") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(open_run(folder / "run"), Contains("no folder"));
  {
    RunFolder run = create_run(folder / "run");
    CHECK_THROWS_WITH(create_run(folder / "run"), Contains("another training"));
    save(run, 1);
    CHECK_THROWS_WITH(open_run(folder / "run"), Contains("another training"));
  }
  CHECK_THROWS_WITH(create_run(folder / "run"),
                    Contains("already holds a run; use --resume or another folder"));
  CHECK(open_run(folder / "run").latest_step() == 1);
  CHECK_THROWS_WITH(open_run(folder.path()), Contains("no complete checkpoint"));
  write_file(folder / "file", "");
  CHECK_THROWS_WITH(create_run(folder / "file"), Contains("cannot make the folder"));
}

TEST_CASE("a folder with other files in a run's places is left alone") {
  const TemporaryFolder folder;
  fs::create_directories(folder / "a/checkpoints/7");
  CHECK_THROWS_WITH(create_run(folder / "a"), Contains("checkpoints is in the way"));
  CHECK(names_in(folder / "a") == Names{"checkpoints"});
  CHECK(names_in(folder / "a/checkpoints") == Names{"7"});
  fs::create_directories(folder / "b");
  write_file(folder / "b/config.json", "mine");
  CHECK_THROWS_WITH(create_run(folder / "b"), Contains("config.json is in the way"));
  CHECK(read_file(folder / "b/config.json") == "mine");
}

TEST_CASE("a save that fails leaves the run as it was") {
  const TemporaryFolder folder;
  RunFolder run = create_run(folder / "run");
  save(run, 1, true);
  const auto failing = [](const fs::path& path) {
    write_file(path / "state.json", "half");
    fail("[test] broken");
  };
  CHECK_THROWS_WITH(save_checkpoint(run, 2, failing, true),
                    Contains("checkpoint 2 was not saved") && Contains("[test] broken") &&
                        Contains("the last one is 1"));
  CHECK(names_in(run.path() / "checkpoints") == Names{"1"});
  CHECK(run.latest_step() == 1);
  CHECK(run.best_step() == 1);
  {
    const FullDisk full(1000);
    const auto large = [](const fs::path& path) {
      write_file(path / "state.json", std::string(5000, 'x'));
    };
    CHECK_THROWS_WITH(save_checkpoint(run, 2, large, true), Contains("checkpoint 2 was not saved"));
  }
  CHECK(names_in(run.path() / "checkpoints") == Names{"1"});
  CHECK(read_file(run.path() / "state.json") == "1");
  save(run, 2);
  CHECK(run.latest_step() == 2);
}

TEST_CASE("a process that is killed while saving leaves the checkpoint before") {
  const TemporaryFolder folder;
  {
    RunFolder run = create_run(folder / "run"), *keep = &run;
    save(*keep, 1);
  }
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    RunFolder run = open_run(folder / "run");
    save_checkpoint(
        run, 2,
        [](const fs::path& path) {
          write_file(path / "state.json", "half");
          ::_exit(9);
        },
        true);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WEXITSTATUS(status) == 9);
  CHECK(names_in(folder / "run/checkpoints") == Names{"1", "tmp-2"});
  CHECK(read_file(folder / "run/state.json") == "1");
  RunFolder run = open_run(folder / "run");
  CHECK(names_in(run.path() / "checkpoints") == Names{"1"});
  save(run, 2);
  CHECK(names_in(run.path() / "checkpoints") == Names{"1", "2"});
}

TEST_CASE("a kill between the renames is repaired by going on") {
  const TemporaryFolder folder;
  {
    RunFolder run = create_run(folder / "run");
    save(run, 1);
  }
  // Complete under its name, but never `latest`.
  fs::create_directory(folder / "run/checkpoints/2");
  write_file(folder / "run/checkpoints/2/state.json", "never published");
  fs::create_directory(folder / "run/checkpoints/3");
  fs::create_symlink("checkpoints/2", folder / "run/latest.tmp");
  RunFolder run = open_run(folder / "run");
  CHECK(run.latest_step() == 1);
  CHECK_FALSE(fs::exists(fs::symlink_status(folder / "run/latest.tmp")));
  save(run, 2);
  CHECK(read_file(run.path() / "state.json") == "2");
  CHECK(names_in(run.path() / "checkpoints") == Names{"1", "2"});
}

TEST_CASE("a run killed before its first checkpoint may be begun again") {
  const TemporaryFolder folder;
  { RunFolder run = create_run(folder / "run"); }
  fs::create_directory(folder / "run/checkpoints/tmp-0");
  fs::create_directory(folder / "run/checkpoints/0");
  CHECK_THROWS_WITH(open_run(folder / "run"), Contains("no complete checkpoint"));
  RunFolder run = create_run(folder / "run");
  save(run, 0);
  CHECK(names_in(run.path() / "checkpoints") == Names{"0"});
  CHECK(read_file(run.path() / "state.json") == "0");
}

}  // namespace regla
