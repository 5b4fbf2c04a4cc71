#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "storage/files.h"

namespace regla {

/// The folder of one training run, locked against a second training while the object lives.
///
///     checkpoints/<step>/   one complete checkpoint: config.json, tokenizer.json,
///                           model.safetensors, optimizer.safetensors, state.json
///     latest, best          links to checkpoints/<step>
///     config.json, ...      links through `latest`, so that the run reads as one model
///     metrics.jsonl         a plain file; the program adds machines.jsonl and gates.jsonl
///
/// A checkpoint is written under a temporary name, synced to the disk and renamed; then one rename
/// of `latest` makes it the run's. Whoever kills the process in between finds the one before.
///
/// A folder may come from anyone: `checkpoints` must be a folder, not a link, and nothing is
/// removed but checkpoints in it that hold no other files than these.
class RunFolder {
 public:
  RunFolder(RunFolder&& other) noexcept = default;
  RunFolder& operator=(RunFolder&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics_path() const { return path_ / "metrics.jsonl"; }
  /// The step of `latest` or `best`, if there is one.
  std::optional<int64_t> latest_step() const;
  std::optional<int64_t> best_step() const;
  /// The open folder `checkpoints`.
  int checkpoints() const { return checkpoints_.get(); }

 private:
  friend RunFolder create_run(const std::filesystem::path& path);
  friend RunFolder open_run(const std::filesystem::path& path);
  explicit RunFolder(const std::filesystem::path& path);
  /// Opens `checkpoints`, making it where nothing has that name.
  void open_checkpoints();

  std::filesystem::path path_;
  Descriptor lock_, checkpoints_;
};

/// Whether a folder holds a run with a checkpoint, even a damaged one.
bool holds_run(const std::filesystem::path& path);

/// Makes a folder for a new run, parents included. An Error when it holds a run already, or files
/// in the places a run needs. What a run left that was killed before its first checkpoint is
/// cleared away.
RunFolder create_run(const std::filesystem::path& path);

/// Opens a run to go on with it and removes what a killed save left behind. A copy whose links were
/// lost, in whatever way, and a copied checkpoint become runs again. An Error when there is no
/// complete checkpoint or another training holds the lock.
RunFolder open_run(const std::filesystem::path& path);

/// The folder of the newest complete checkpoint, for reading; needs no lock. That is what `latest`
/// leads to; in a copy that lost its links, the newest of `checkpoints`, else the folder itself (a
/// copied checkpoint or model). An Error when there is neither.
std::filesystem::path checkpoint_of(const std::filesystem::path& run);

/// The newest checkpoint of a run while it is read: as long as the object lives no training removes
/// it, however often it saves.
class HeldCheckpoint {
 public:
  explicit HeldCheckpoint(const std::filesystem::path& run);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  Descriptor lock_;
};

/// Saves a checkpoint: `write_files` gets a fresh folder to fill. The newest `keep_last` and the
/// best by validation are kept, others removed, before the save already if there are more. When
/// anything fails (a full disk, an exception of `write_files`) the run is as it was, and an Error
/// says so. A step that `latest` already points to is not written again.
void save_checkpoint(RunFolder& run, int64_t step,
                     const std::function<void(const std::filesystem::path&)>& write_files,
                     bool is_best, int64_t keep_last = 2);

}  // namespace regla
