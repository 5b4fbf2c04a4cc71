#include "training/checkpoint_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "storage/files.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

/// Whether a checkpoint, or one whose writer was killed, may hold a file of this name.
bool is_own_file(std::string_view name) {
  return is_temporary_name(name) ||
         std::find(std::begin(kCheckpointFiles), std::end(kCheckpointFiles), name) !=
             std::end(kCheckpointFiles);
}

/// The names in an open folder when they are all a checkpoint's and none is a folder.
std::optional<std::vector<std::string>> own_files(int folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(
      ::fdopendir(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), &::closedir);
  if (!entries) return std::nullopt;
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat status {};
    if (!is_own_file(name) || ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        S_ISDIR(status.st_mode)) {
      return std::nullopt;
    }
    names.push_back(name);
  }
  return names;
}

}  // namespace

std::optional<int64_t> step_named(const std::string& name) {
  const bool is_number =
      !name.empty() && name.size() < 19 &&
      std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number || (name.size() > 1 && name[0] == '0')) return std::nullopt;
  return std::stoll(name);
}

bool is_unfinished(std::string name) {
  if (!name.starts_with(kUnfinished)) return false;
  if (name.ends_with("-old")) name.resize(name.size() - 4);
  return step_named(name.substr(std::strlen(kUnfinished))).has_value();
}

bool is_checkpoint(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(folder, error)) &&
         std::all_of(std::begin(kCheckpointFiles), std::end(kCheckpointFiles),
                     [&](const char* name) { return fs::is_regular_file(folder / name, error); });
}

bool remove_checkpoint(int checkpoints, const std::string& name) {
  const Descriptor folder(
      ::openat(checkpoints, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return false;
  const auto files = own_files(folder.get());
  if (!files || (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)) {
    return false;
  }
  std::string doomed = name;
  if (step_named(name)) {  // so that no half-removed checkpoint has a step's name
    doomed = kUnfinished + name;
    if (::renameat(checkpoints, name.c_str(), checkpoints, doomed.c_str()) != 0) return false;
  }
  for (const std::string& file : *files) {
    check(::unlinkat(folder.get(), file.c_str(), 0) == 0 || errno == ENOENT, "[run] cannot remove ",
          file, " of checkpoint ", name, ": ", std::strerror(errno));
  }
  return ::unlinkat(checkpoints, doomed.c_str(), AT_REMOVEDIR) == 0;
}

void copy_checkpoint(const fs::path& from, const fs::path& to) {
  for (const char* name : kCheckpointFiles) {
    check(fs::is_regular_file(from / name), "[run] no file ", (from / name).string(),
          " to go on from");
    std::error_code no_link;
    if (!fs::is_symlink(from / name)) fs::create_hard_link(from / name, to / name, no_link);
    if (!fs::exists(to / name)) fs::copy_file(from / name, to / name);
  }
}

}  // namespace regla
