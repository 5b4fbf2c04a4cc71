#include "storage/files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/check.h"
#include "core/hash.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_errno(const char* doing, const fs::path& path) {
  const int error = errno;
  fail("[file] cannot ", doing, " ", path.string(), ": ", std::strerror(error));
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

struct stat status_of(const Descriptor& file, const fs::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno("open", path);
  return status;
}

bool is_stream(const struct stat& status) {
  return S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode);
}

constexpr std::string_view kTemporary = ".regla-";
constexpr size_t kRandomDigits = 16;

/// Nobody can know the name beforehand and put a link there.
std::string temporary_name() {
  uint64_t number = 0;
  check(::getrandom(&number, sizeof number, 0) == sizeof number, "[file] no random numbers");
  return std::string(kTemporary) + hexadecimal(number);
}

/// Removes temporary files that nobody is writing any more.
void remove_leftovers(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const fs::path& path = entries->path();
    if (!is_temporary_name(path.filename().string())) continue;
    const Descriptor file(
        ::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) continue;
    const bool is_ours = S_ISREG(status.st_mode) && status.st_uid == ::geteuid();
    if (is_ours && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
  }
}

/// A new file in the folder, locked for as long as it is open. Its path goes to `path`.
Descriptor create_temporary(const fs::path& folder, const fs::path& target, fs::path& path) {
  while (true) {
    path = folder / temporary_name();
    Descriptor file(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (!file && errno == EEXIST) continue;
    if (!file) {
      path.clear();
      fail_errno("create", target);
    }
    ::flock(file.get(), LOCK_EX);  // a file system without locks has left-overs
    if (status_of(file, target).st_nlink > 0) return file;
    // Another process took it for a left-over before it was locked.
  }
}

/// Opens a pipe, terminal or the like for writing; none when a file is to be written.
Descriptor open_stream(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !is_stream(status)) return Descriptor();
  Descriptor stream = open_file(path, O_WRONLY, NamedBy::User);
  const int flags = ::fcntl(stream.get(), F_GETFL);
  if (flags < 0 || ::fcntl(stream.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    fail_errno("write", path);
  }
  return stream;
}

}  // namespace

Descriptor::~Descriptor() {
  if (value_ >= 0) ::close(value_);
}

Descriptor open_file(const fs::path& path, int flags, NamedBy named_by) {
  Descriptor file(::open(path.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666));
  const char* const doing = (flags & O_ACCMODE) == O_RDONLY ? "read" : "write";
  if (!file && errno == ENXIO) {
    fail("[file] cannot ", doing, " ", path.string(), ": a socket, or a pipe with no reader");
  }
  if (!file && errno == ELOOP && (flags & O_NOFOLLOW)) {
    fail("[file] expected a regular file, got the link ", path.string());
  }
  if (!file) fail_errno(doing, path);
  const struct stat status = status_of(file, path);
  check(S_ISREG(status.st_mode) || (named_by == NamedBy::User && is_stream(status)),
        "[file] expected a regular file, got ", path.string());
  return file;
}

std::string read_file(const fs::path& path, uint64_t limit, NamedBy named_by) {
  const Descriptor file = open_file(path, O_RDONLY, named_by);
  const auto check_size = [&](uint64_t size) {
    check(size <= limit, "[file] ", path.string(), " has more than the ", limit,
          " bytes that such a file may have");
  };
  const struct stat status = status_of(file, path);
  check_size(S_ISREG(status.st_mode) ? static_cast<uint64_t>(status.st_size) : 0);
  std::string text;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN && is_stream(status)) {
      pollfd ready = {file.get(), POLLIN, 0};
      ::poll(&ready, 1, -1);
      continue;
    }
    if (count < 0) fail_errno("read", path);
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    check_size(text.size());
  }
}

AtomicFile::AtomicFile(const fs::path& path, NamedBy named_by) : path_(path) {
  if (named_by == NamedBy::User) {
    file_ = open_stream(path);
    if (file_) return;
    std::error_code error;
    if (fs::is_symlink(fs::symlink_status(path, error))) {
      path_ = fs::canonical(path, error);
      check(!error, "[file] cannot write through the link ", path.string(), ": ", error.message());
    }
  }
  struct stat status {};
  const bool is_there = ::lstat(path_.c_str(), &status) == 0;
  check(!is_there || S_ISREG(status.st_mode),
        "[file] expected a regular file or nothing in its place, got ",
        S_ISLNK(status.st_mode) ? "the link " : "", path_.string());
  const fs::path folder = folder_of(path_);
  remove_leftovers(folder);
  file_ = create_temporary(folder, path_, temporary_);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(static_cast<bool>(file_), "[file] ", path_.string(), " is written already");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written == 0) errno = ENOSPC;
    if (written <= 0) fail_errno("write", path_);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  check(static_cast<bool>(file_), "[file] ", path_.string(), " is written already");
  const Descriptor file = std::move(file_);  // its lock is held until the file has its name
  if (temporary_.empty()) return;
  if (::fsync(file.get()) != 0) fail_errno("write", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("replace", path_);
  temporary_.clear();
  sync_to_disk(folder_of(path_));
}

bool is_temporary_name(std::string_view name) {
  return name.size() == kTemporary.size() + kRandomDigits && name.starts_with(kTemporary) &&
         name.find_first_not_of("0123456789abcdef", kTemporary.size()) == std::string_view::npos;
}

void write_file(const fs::path& path, std::string_view text, NamedBy named_by) {
  AtomicFile file(path, named_by);
  file.write(text);
  file.commit();
}

void sync_to_disk(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) fail_errno("open", path);
  // EINVAL: a file system that has nothing to wait for.
  if (::fsync(file.get()) != 0 && errno != EINVAL) fail_errno("write", path);
}

void replace_link(const fs::path& target, const fs::path& link) {
  const fs::path temporary = folder_of(link) / temporary_name();
  if (::symlink(target.c_str(), temporary.c_str()) != 0) fail_errno("create", link);
  if (::rename(temporary.c_str(), link.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    errno = error;
    fail_errno("replace", link);
  }
  sync_to_disk(folder_of(link));
}

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor file = open_file(path, O_RDONLY);
  const struct stat status = status_of(file, path);
  if (status.st_size == 0) return;
  const auto size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail_errno("map", path);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace regla
