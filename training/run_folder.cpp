#include "training/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/files.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRootLinks[] = {"config.json", "tokenizer.json", "model.safetensors",
                                      "optimizer.safetensors", "state.json"};
constexpr const char* kTemporary = "tmp-";

std::optional<int64_t> step_named(const std::string& name) {
  const bool digits =
      !name.empty() && name.size() < 19 &&
      std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits) return std::nullopt;
  return std::stoll(name);
}

/// Whether save_checkpoint gives such names to folders that are not complete: tmp-<step>, with
/// "-old" behind it where it moved one out of the way.
bool is_temporary(std::string name) {
  if (!name.starts_with(kTemporary)) return false;
  if (name.ends_with("-old")) name.resize(name.size() - 4);
  return step_named(name.substr(4)).has_value();
}

/// The step a link such as `latest` points to, when that checkpoint is there.
std::optional<int64_t> linked_step(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  if (error || !fs::is_directory(link, error)) return std::nullopt;
  return step_named(target.filename().string());
}

/// Removes what a save left that did not come to its end.
void remove_leftovers(const fs::path& run) {
  fs::remove(run / "latest.tmp");
  fs::remove(run / "best.tmp");
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
    if (is_temporary(entry.path().filename().string())) leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) fs::remove_all(path);
}

/// Links `config.json` and the others through `latest`, where they are not there yet.
void make_root_links(const fs::path& run) {
  for (const char* name : kRootLinks) {
    const fs::path link = run / name, target = fs::path("latest") / name;
    const fs::file_status status = fs::symlink_status(link);
    if (!fs::exists(status)) {
      fs::create_symlink(target, link);
    } else {
      check(fs::is_symlink(status) && fs::read_symlink(link) == target, "[run] ", link.string(),
            " is in the way; use another folder");
    }
  }
  sync_to_disk(run);
}

/// Whether a run was begun here, even if it was killed before its first checkpoint.
bool is_begun(const fs::path& run) {
  std::error_code error;
  return fs::read_symlink(run / kRootLinks[0], error) == fs::path("latest") / kRootLinks[0];
}

/// An Error when something that is not a run's stands where a run's folder and links go.
void check_free(const fs::path& run) {
  for (const char* name : {"latest", "best", "checkpoints", "metrics.jsonl"}) {
    check(!fs::exists(fs::symlink_status(run / name)), "[run] ", (run / name).string(),
          " is in the way; use another folder");
  }
}

/// Runs `f`, turning the file system's exceptions into Errors.
template <class F>
void with_errors(const char* doing, const fs::path& path, F&& f) {
  try {
    f();
  } catch (const fs::filesystem_error& error) {
    fail("[run] cannot ", doing, " ", path.string(), ": ", error.code().message());
  }
}

void sync_files(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() || entry.is_directory()) sync_to_disk(entry.path());
  }
  sync_to_disk(folder);
}

/// Writes and publishes the checkpoint of a step; throws with the run still as it was.
void write_checkpoint(const fs::path& run, int64_t step,
                      const std::function<void(const fs::path&)>& write_files, bool is_best) {
  const std::string name = std::to_string(step);
  const fs::path folder = run / "checkpoints";
  const fs::path fresh = folder / (kTemporary + name), target = folder / name;
  fs::remove_all(fresh);
  fs::create_directory(fresh);
  write_files(fresh);
  sync_files(fresh);
  if (fs::exists(target)) {
    // Left by a save that was killed before it became `latest`.
    const fs::path old = folder / (kTemporary + name + "-old");
    fs::remove_all(old);
    fs::rename(target, old);
  }
  fs::rename(fresh, target);
  sync_to_disk(folder);
  // `best` first: a kill between the two repeats these steps, which finds the same best again.
  if (is_best) replace_link(fs::path("checkpoints") / name, run / "best");
  replace_link(fs::path("checkpoints") / name, run / "latest");
}

/// Removes all checkpoints but the newest `keep_last` up to `latest`, and the best.
void remove_old(const RunFolder& run, int64_t keep_last) {
  const int64_t latest = run.latest_step().value();
  std::vector<int64_t> steps;
  for (const auto& entry : fs::directory_iterator(run.path() / "checkpoints")) {
    if (const auto step = step_named(entry.path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  int64_t kept = 0;
  for (const int64_t step : steps) {
    if (step <= latest && kept < keep_last) {
      ++kept;
    } else if (step != run.best_step()) {
      const std::string name = std::to_string(step);
      const fs::path folder = run.path() / "checkpoints", old = folder / (kTemporary + name);
      fs::rename(folder / name, old);  // so that no half-removed checkpoint has a step's name
      fs::remove_all(old);
    }
  }
  remove_leftovers(run.path());
}

}  // namespace

RunFolder::RunFolder(const fs::path& path) : path_(path) {
  lock_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(lock_ >= 0, "[run] cannot open the folder ", path.string());
  // A file system without locks gets none.
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(lock_);
    fail("[run] another training is writing to ", path.string());
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

std::optional<int64_t> RunFolder::latest_step() const { return linked_step(path_ / "latest"); }
std::optional<int64_t> RunFolder::best_step() const { return linked_step(path_ / "best"); }

bool holds_run(const fs::path& path) {
  std::error_code error;
  return is_begun(path) && fs::exists(fs::symlink_status(path / "latest", error));
}

RunFolder create_run(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  check(!error && fs::is_directory(path, error), "[run] cannot make the folder ", path.string(),
        error ? ": " + error.message() : " where a file is");
  RunFolder run(path);
  with_errors("write to", path, [&] {
    if (is_begun(path)) {
      check(!holds_run(path), "[run] ", path.string(),
            " already holds a run; use --resume or another folder");
      fs::remove(path / "best");
    } else {
      check_free(path);
    }
    fs::create_directory(path / "checkpoints");
    make_root_links(path);
    remove_leftovers(path);
    sync_to_disk(path);
  });
  return run;
}

RunFolder open_run(const fs::path& path) {
  std::error_code error;
  check(fs::is_directory(path, error), "[run] no folder ", path.string());
  RunFolder run(path);
  check(run.latest_step().has_value(), "[run] no complete checkpoint in ", path.string());
  with_errors("write to", path, [&] {
    remove_leftovers(path);
    make_root_links(path);
  });
  return run;
}

fs::path checkpoint_of(const fs::path& run) {
  std::error_code error;
  const fs::path latest = fs::canonical(run / "latest", error);
  if (!error && fs::is_directory(latest, error)) return latest;
  check(fs::is_regular_file(run / "config.json", error), "[run] no complete checkpoint in ",
        run.string());
  return run;
}

void save_checkpoint(RunFolder& run, int64_t step,
                     const std::function<void(const fs::path&)>& write_files, bool is_best,
                     int64_t keep_last) {
  check(step >= 0 && keep_last >= 1, "[run] expected a step >= 0 and keep_last >= 1, got ", step,
        " and ", keep_last);
  const auto before = run.latest_step();
  try {
    if (before != step) {
      write_checkpoint(run.path(), step, write_files, is_best);
    } else if (is_best) {
      replace_link(fs::path("checkpoints") / std::to_string(step), run.path() / "best");
    }
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(run.path() / "checkpoints" / (kTemporary + std::to_string(step)), ignored);
    const auto* disk = dynamic_cast<const fs::filesystem_error*>(&error);
    fail("[run] checkpoint ", step, " was not saved in ", run.path().string(), ": ",
         disk ? disk->code().message() : error.what(), "; the last one is ",
         before ? std::to_string(*before) : "none");
  }
  with_errors("clear old checkpoints in", run.path(), [&] { remove_old(run, keep_last); });
}

}  // namespace regla
