#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace regla {

/// A file descriptor that is closed with the object; below 0: none.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor();

  int get() const { return value_; }
  explicit operator bool() const { return value_ >= 0; }

 private:
  int value_;
};

/// Who chose a file's name. The program's own names may lie in a folder that comes from anyone:
/// nothing but regular files is opened there, and links are not written through. What the user
/// names may be a pipe, a terminal or a link.
enum class NamedBy { Program, User };

/// Opens a file without waiting for it, whatever it is; `flags` are those of open(2). An Error for
/// anything but a regular file and, with O_NOFOLLOW, for a link.
Descriptor open_file(const std::filesystem::path& path, int flags,
                     NamedBy named_by = NamedBy::Program);

/// The whole of a file; an Error that names it when it cannot be read or has more than `limit`
/// bytes. Whoever knows what a file is for gives the size that an honest one may have.
std::string read_file(const std::filesystem::path& path,
                      uint64_t limit = std::numeric_limits<uint64_t>::max(),
                      NamedBy named_by = NamedBy::Program);

/// A file that is complete or absent: written under a temporary name in the same folder, then
/// fsynced and renamed by `commit`. Without a commit the temporary file is removed and whatever
/// stood at `path` before is untouched. A full disk is an Error, and so is a path where something
/// else than a regular file stands, a link included. If the user named the path, a link has the
/// file replaced that it leads to, and a pipe, a terminal or the like is written directly.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path, NamedBy named_by = NamedBy::Program);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty: written directly, or committed
  Descriptor file_;
};

/// Whether AtomicFile gives its temporary files such names. One that a killed process left is
/// removed when the next file is written into the folder; one in use is locked.
bool is_temporary_name(std::string_view name);

/// AtomicFile in one call.
void write_file(const std::filesystem::path& path, std::string_view text,
                NamedBy named_by = NamedBy::Program);

/// Waits until a file's contents, or a folder's names, are on the disk.
void sync_to_disk(const std::filesystem::path& path);

/// Makes `link` a symbolic link to `target`, replacing an older link or file in one step.
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
