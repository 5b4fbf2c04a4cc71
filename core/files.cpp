#include "core/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const char* doing, const fs::path& path) {
  const int error = errno;
  fail("[file] cannot ", doing, " ", path.string(), ": ", std::strerror(error));
}

/// Closes a descriptor at the end of a scope.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& path) : path_(path), temporary_(path) {
  // Two processes may write the same file at the same time: each its own, the last one stays.
  temporary_ += "." + std::to_string(::getpid()) + ".tmp";
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_errno("create", temporary_);
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(descriptor_ >= 0, "[file] ", path_.string(), " is written already");
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written == 0) errno = ENOSPC;
    if (written <= 0) fail_errno("write", path_);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  check(descriptor_ >= 0, "[file] ", path_.string(), " is written already");
  if (::fsync(descriptor_) != 0) fail_errno("write", path_);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail_errno("write", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("replace", path_);
  temporary_.clear();
  sync_to_disk(folder_of(path_));
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const fs::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail_errno("read", path);
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file.value, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno("read", path);
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
  }
}

void sync_to_disk(const fs::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail_errno("open", path);
  // EINVAL: a file system that has nothing to wait for.
  if (::fsync(file.value) != 0 && errno != EINVAL) fail_errno("write", path);
}

void replace_link(const fs::path& target, const fs::path& link) {
  fs::path temporary = link;
  temporary += ".tmp";
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0) fail_errno("create", temporary);
  if (::rename(temporary.c_str(), link.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    errno = error;
    fail_errno("replace", link);
  }
  sync_to_disk(folder_of(link));
}

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.value < 0) fail_errno("read", path);
  struct stat status {};
  if (::fstat(file.value, &status) != 0) fail_errno("read", path);
  check(S_ISREG(status.st_mode), "[file] expected a regular file, got ", path.string());
  if (status.st_size == 0) return;
  const auto size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (address == MAP_FAILED) fail_errno("map", path);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace regla
