#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace regla {

/// The files of a checkpoint. A copy of these, in a folder of any name, is a checkpoint too.
inline constexpr const char* kCheckpointFiles[] = {
    "config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors", "state.json"};

/// What a folder is called that is not, or no longer, complete: this and the step.
inline constexpr const char* kUnfinished = "tmp-";

/// The step whose checkpoint has this name within a run, if there is one.
std::optional<int64_t> step_named(const std::string& name);

/// Whether this is the name of something unfinished: tmp-<step>, with "-old" behind it where it
/// made room for another.
bool is_unfinished(std::string name);

/// Whether a folder, which is no link, holds all files of a checkpoint.
bool is_checkpoint(const std::filesystem::path& folder);

/// Removes the checkpoint, finished or not, that the open folder `checkpoints` has under this name.
/// Returns false, and removes nothing, where there is none, a link, a folder with other files than
/// a checkpoint's, or one that is being read (HeldCheckpoint).
bool remove_checkpoint(int checkpoints, const std::string& name);

/// Fills a new folder with the files of a checkpoint, sharing the disk's blocks where it can.
void copy_checkpoint(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace regla
