#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <utility>

namespace regla {

/// The folder of one training run, locked against a second training while the object lives.
///
///     checkpoints/<step>/   one complete checkpoint: config.json, tokenizer.json,
///                           model.safetensors, optimizer.safetensors, state.json
///     latest, best          links to checkpoints/<step>
///     config.json, ...      links through `latest`, so that the run reads as one model
///     metrics.jsonl         a plain file
///
/// A checkpoint is written under a temporary name, synced to the disk and renamed; then one rename
/// of `latest` makes it the run's. Whoever kills the process in between finds the one before.
class RunFolder {
 public:
  RunFolder(RunFolder&& other) noexcept
      : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics_path() const { return path_ / "metrics.jsonl"; }
  /// The step of `latest` or `best`, if there is one.
  std::optional<int64_t> latest_step() const;
  std::optional<int64_t> best_step() const;

 private:
  friend RunFolder create_run(const std::filesystem::path& path);
  friend RunFolder open_run(const std::filesystem::path& path);
  explicit RunFolder(const std::filesystem::path& path);

  std::filesystem::path path_;
  int lock_ = -1;
};

/// Whether a folder holds a run with a checkpoint, even a damaged one.
bool holds_run(const std::filesystem::path& path);

/// Makes a folder for a new run, parents included. An Error when it holds a run already, or files
/// in the places a run needs. What a run left that was killed before its first checkpoint is
/// cleared away.
RunFolder create_run(const std::filesystem::path& path);

/// Opens a run to go on with it and removes what a killed save left behind. An Error when there is
/// no complete checkpoint or another training holds the lock.
RunFolder open_run(const std::filesystem::path& path);

/// The folder of the newest complete checkpoint, for reading; needs no lock. A folder that is a
/// checkpoint itself (a copied model) is returned as it is. An Error when there is neither.
std::filesystem::path checkpoint_of(const std::filesystem::path& run);

/// Saves a checkpoint: `write_files` gets a fresh folder to fill. The newest `keep_last` and the
/// best by validation are kept, others removed. When anything fails (a full disk, an exception of
/// `write_files`) the run is as it was, and an Error says so. A step that `latest` already points
/// to is not written again.
void save_checkpoint(RunFolder& run, int64_t step,
                     const std::function<void(const std::filesystem::path&)>& write_files,
                     bool is_best, int64_t keep_last = 2);

}  // namespace regla
