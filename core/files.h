#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace regla {

/// A file that is complete or absent: written under a temporary name in the same folder, then
/// fsynced and renamed by `commit`. Without a commit the temporary file is removed and whatever
/// stood at `path` before is untouched. A full disk is an Error.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  void discard() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// AtomicFile in one call.
void write_file(const std::filesystem::path& path, std::string_view text);

/// The whole of a file; an Error that names it when it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Waits until a file's contents, or a folder's names, are on the disk.
void sync_to_disk(const std::filesystem::path& path);

/// Makes `link` a symbolic link to `target`, replacing an older link in one step.
void replace_link(const std::filesystem::path& target, const std::filesystem::path& link);

/// A file's bytes, mapped read-only. An Error when it cannot be opened or is no regular file.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace regla
