#include "training/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/check.h"
#include "training/checkpoint.h"
#include "training/checkpoint_folder.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLinkLimit = 4096;  // bytes of a link, or of a file that stands for one
constexpr int kTries = 1000;           // to hold a checkpoint while a training goes on

fs::path link_to(int64_t step) { return fs::path("checkpoints") / std::to_string(step); }

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

/// The step that a link such as `latest` names. Some tools copy a link as a file that holds its
/// text.
std::optional<int64_t> step_named_by(const fs::path& link) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(link, error);
  fs::path target;
  if (fs::is_symlink(status)) {
    target = fs::read_symlink(link, error);
  } else if (fs::is_regular_file(status) && fs::file_size(link, error) <= kLinkLimit) {
    target = read_file(link, kLinkLimit);
  }
  const auto step = step_named(target.filename().string());
  return step && target == link_to(*step) ? step : std::nullopt;
}

/// The step a link such as `latest` leads to, when that checkpoint is there.
std::optional<int64_t> linked_step(const fs::path& link) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(link, error))) return std::nullopt;
  const auto step = step_named_by(link);
  return step && is_folder(link.parent_path() / link_to(*step)) ? step : std::nullopt;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

/// Removes what a save left that did not come to its end.
void remove_leftovers(const RunFolder& run) {
  for (const std::string& name : names_in(run.path())) {
    const bool is_ours = is_temporary_name(name) || name == "latest.tmp" || name == "best.tmp";
    if (is_ours && fs::is_symlink(run.path() / name)) fs::remove(run.path() / name);
  }
  for (const std::string& name : names_in(run.path() / "checkpoints")) {
    if (is_unfinished(name)) remove_checkpoint(run.checkpoints(), name);
  }
}

/// Whether a file of the root says what the link does that belongs there, so that the link may
/// replace it: a copy of the checkpoint's file, or of the link's text.
bool stands_for_link(const fs::path& file, const fs::path& target) {
  if (!fs::is_regular_file(fs::symlink_status(file))) return false;
  const MappedFile here(file);
  const std::string text = target.string();
  if (std::ranges::equal(here.bytes(), std::as_bytes(std::span(text)))) return true;
  const fs::path original = file.parent_path() / target;
  return fs::is_regular_file(original) &&
         std::ranges::equal(here.bytes(), MappedFile(original).bytes());
}

/// Links `config.json` and the others through `latest`, where they are not there yet.
void make_root_links(const fs::path& run) {
  for (const char* name : kCheckpointFiles) {
    const fs::path link = run / name, target = fs::path("latest") / name;
    const fs::file_status status = fs::symlink_status(link);
    if (!fs::exists(status) || stands_for_link(link, target)) {
      replace_link(target, link);
    } else {
      check(fs::is_symlink(status) && fs::read_symlink(link) == target, "[run] ", link.string(),
            " is in the way; use another folder");
    }
  }
}

/// Whether a run was begun here, even if it was killed before its first checkpoint.
bool is_begun(const fs::path& run) {
  std::error_code error;
  const char* const name = kCheckpointFiles[0];
  return fs::read_symlink(run / name, error) == fs::path("latest") / name;
}

/// An Error when something that is not a run's stands where a run's folder and links go.
void check_free(const fs::path& run) {
  for (const char* name :
       {"latest", "best", "checkpoints", "metrics.jsonl", "machines.jsonl", "gates.jsonl"}) {
    check(!fs::exists(fs::symlink_status(run / name)), "[run] ", (run / name).string(),
          " is in the way; use another folder");
  }
}

/// An Error for a checkpoint within a run: going on with it would make a run of it.
void check_no_checkpoint_of_run(const fs::path& path) {
  std::error_code error;
  const fs::path checkpoints = fs::canonical(path, error).parent_path();
  check(error || checkpoints.filename() != "checkpoints" ||
            !fs::exists(fs::symlink_status(checkpoints.parent_path() / "latest", error)),
        "[run] ", path.string(), " belongs to a run; go on with the run, or with a copy of this");
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

/// Has `write_files` fill checkpoints/<step>, which is complete or absent.
void write_folder(const RunFolder& run, int64_t step,
                  const std::function<void(const fs::path&)>& write_files) {
  const std::string name = std::to_string(step), unfinished = kUnfinished + name;
  const fs::path folder = run.path() / "checkpoints";
  remove_checkpoint(run.checkpoints(), unfinished);
  check(fs::create_directory(folder / unfinished), "[run] ", (folder / unfinished).string(),
        " is in the way");
  write_files(folder / unfinished);
  sync_files(folder / unfinished);
  // What is there was left by a save that was killed before it became `latest`.
  const fs::path target = folder / name;
  if (fs::exists(fs::symlink_status(target)) && !remove_checkpoint(run.checkpoints(), name)) {
    fs::rename(target, folder / (unfinished + "-old"));
  }
  fs::rename(folder / unfinished, target);
  sync_to_disk(folder);
}

/// Writes and publishes the checkpoint of a step; throws with the run still as it was.
void write_checkpoint(const RunFolder& run, int64_t step,
                      const std::function<void(const fs::path&)>& write_files, bool is_best) {
  write_folder(run, step, write_files);
  // `best` first: a kill between the two repeats these steps, which finds the same best again.
  if (is_best) replace_link(link_to(step), run.path() / "best");
  replace_link(link_to(step), run.path() / "latest");
}

/// Removes all checkpoints but the newest `keep_last` up to `latest`, and the best.
void remove_old(const RunFolder& run, int64_t keep_last) {
  const auto latest = run.latest_step(), best = run.best_step();
  if (!latest) return;
  std::vector<int64_t> steps;
  for (const std::string& name : names_in(run.path() / "checkpoints")) {
    if (const auto step = step_named(name)) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  int64_t kept = 0;
  for (const int64_t step : steps) {
    if (step <= *latest && kept < keep_last) {
      ++kept;
    } else if (step != best) {
      remove_checkpoint(run.checkpoints(), std::to_string(step));
    }
  }
  remove_leftovers(run);
}

/// The newest complete checkpoint, whatever `latest` says.
std::optional<int64_t> newest_step(const fs::path& run) {
  std::optional<int64_t> newest;
  if (!is_folder(run / "checkpoints")) return newest;
  with_errors("read", run / "checkpoints", [&] {
    for (const std::string& name : names_in(run / "checkpoints")) {
      const auto step = step_named(name);
      if (step && is_checkpoint(run / "checkpoints" / name)) newest = std::max(newest, step);
    }
  });
  return newest;
}

/// Puts the checkpoint in `source` under its step's name, if that is not there, and has `link` lead
/// to it. A folder in the link's place, which is a copy of a checkpoint, goes.
void publish(const RunFolder& run, const fs::path& source, int64_t step, const char* link) {
  const fs::path place = run.path() / link;
  if (linked_step(place) == step) return;
  if (!is_checkpoint(run.path() / link_to(step))) {
    write_folder(run, step, [&](const fs::path& fresh) { copy_checkpoint(source, fresh); });
  }
  if (is_folder(place)) {
    const std::string old = kUnfinished + std::to_string(step) + "-old";
    remove_checkpoint(run.checkpoints(), old);
    fs::rename(place, run.path() / "checkpoints" / old);
  }
  replace_link(link_to(step), place);
}

/// Makes the links of a run where a copy lost them.
void restore_links(const RunFolder& run) {
  if (run.latest_step()) return;
  const fs::path newest = checkpoint_of(run.path()), best = run.path() / "best";
  const TrainingState state = read_training_state(newest);
  for (const fs::path& source : {newest, best, run.path() / link_to(state.best_step)}) {
    const bool is_there = source == newest || is_checkpoint(source);  // the best may be lost
    if (is_there && read_training_state(source).step == state.best_step) {
      publish(run, source, state.best_step, "best");
    }
  }
  publish(run, newest, state.step, "latest");
}

}  // namespace

RunFolder::RunFolder(const fs::path& path)
    : path_(path), lock_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  check(static_cast<bool>(lock_), "[run] cannot open the folder ", path.string());
  // A file system without locks gets none.
  check(::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK,
        "[run] another training is writing to ", path.string());
}

void RunFolder::open_checkpoints() {
  ::mkdirat(lock_.get(), "checkpoints", 0777);
  checkpoints_ = Descriptor(
      ::openat(lock_.get(), "checkpoints", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  check(static_cast<bool>(checkpoints_), "[run] expected a folder, and no link, as ",
        (path_ / "checkpoints").string());
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
      if (fs::is_symlink(path / "best")) fs::remove(path / "best");
    } else {
      check_free(path);
    }
    run.open_checkpoints();
    make_root_links(path);
    remove_leftovers(run);
    sync_to_disk(path);
  });
  return run;
}

RunFolder open_run(const fs::path& path) {
  std::error_code error;
  check(fs::is_directory(path, error), "[run] no folder ", path.string());
  check_no_checkpoint_of_run(path);
  RunFolder run(path);
  checkpoint_of(path);  // an Error where there is none
  with_errors("write to", path, [&] {
    run.open_checkpoints();
    restore_links(run);
    remove_leftovers(run);
    make_root_links(path);
  });
  return run;
}

fs::path checkpoint_of(const fs::path& run) {
  std::error_code error;
  if (is_folder(run / "latest")) return run / "latest";
  if (const auto step = step_named_by(run / "latest")) {
    if (fs::is_directory(run / link_to(*step), error)) return run / link_to(*step);
  }
  if (const auto step = newest_step(run)) return run / link_to(*step);
  check(fs::is_regular_file(run / "config.json", error), "[run] no complete checkpoint in ",
        run.string());
  return run;
}

HeldCheckpoint::HeldCheckpoint(const fs::path& run) {
  for (int tries = 0; tries < kTries; ++tries) {
    path_ = checkpoint_of(run);
    lock_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // A training that removes a checkpoint has it locked. One that did so before has its folder
    // under another name.
    if (lock_ && (::flock(lock_.get(), LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)) {
      struct stat held {
      }, named{};
      if (::fstat(lock_.get(), &held) == 0 && ::stat(path_.c_str(), &named) == 0 &&
          held.st_dev == named.st_dev && held.st_ino == named.st_ino) {
        return;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  fail("[run] cannot open ", path_.string());
}

void save_checkpoint(RunFolder& run, int64_t step,
                     const std::function<void(const fs::path&)>& write_files, bool is_best,
                     int64_t keep_last) {
  check(step >= 0 && keep_last >= 1, "[run] expected a step >= 0 and keep_last >= 1, got ", step,
        " and ", keep_last);
  const auto before = run.latest_step();
  const auto clear = [&] { remove_old(run, keep_last); };
  with_errors("clear old checkpoints in", run.path(), clear);  // makes room on a full disk
  try {
    if (before != step) {
      write_checkpoint(run, step, write_files, is_best);
    } else if (is_best) {
      replace_link(link_to(step), run.path() / "best");
    }
  } catch (const std::exception& error) {
    remove_checkpoint(run.checkpoints(), kUnfinished + std::to_string(step));
    const auto* disk = dynamic_cast<const fs::filesystem_error*>(&error);
    fail("[run] checkpoint ", step, " was not saved in ", run.path().string(), ": ",
         disk ? disk->code().message() : error.what(), "; the last one is ",
         before ? std::to_string(*before) : "none");
  }
  with_errors("clear old checkpoints in", run.path(), clear);
}

}  // namespace regla
