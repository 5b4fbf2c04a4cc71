#include "storage/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "core/check.h"
#include "tests/catch.h"
#include "tests/error_of.h"
#include "tests/temporary_folder.h"

namespace regla {
namespace {

namespace fs = std::filesystem;
using test::error_of;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int64_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

}  // namespace

TEST_CASE("only regular files are read, none is waited for and none is larger than asked") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  fs::create_symlink(folder / "pipe", folder / "to-pipe");
  fs::create_symlink("/dev/zero", folder / "zeros");
  for (const char* name : {"pipe", "to-pipe", "zeros", "."}) {
    const std::string wanted = "expected a regular file, got " + (folder / name).string();
    CHECK(has(error_of([&] { read_file(folder / name); }), wanted));
    CHECK(has(error_of([&] { MappedFile file(folder / name); }), wanted));
  }
  write_file(folder / "five", "12345");
  CHECK(read_file(folder / "five", 5) == "12345");
  CHECK(has(error_of([&] { read_file(folder / "five", 4); }), "more than the 4 bytes"));
  // A hole of a tebibyte is refused by its size, and an endless device by what was read.
  std::ofstream(folder / "hole").put('x');
  fs::resize_file(folder / "hole", uintmax_t{1} << 40);
  CHECK(has(error_of([&] { read_file(folder / "hole", 1000); }), "more than the 1000 bytes"));
  CHECK(has(error_of([&] { read_file("/dev/zero", 1000, NamedBy::User); }), "1000 bytes"));
}

TEST_CASE("a pipe that the user names is read and written, but not waited for without a peer") {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(read_file(pipe, 100, NamedBy::User).empty());
  CHECK(has(error_of([&] { AtomicFile file(pipe, NamedBy::User); }), "no reader"));
  const int both = ::open(pipe.c_str(), O_RDWR);
  REQUIRE(both >= 0);
  write_file(pipe, "through", NamedBy::User);
  char text[8] = {};
  CHECK(::read(both, text, 7) == 7);
  CHECK(std::string(text) == "through");
  CHECK(fs::is_fifo(pipe));
  std::thread late([&] {
    ::usleep(50000);
    const ssize_t written = ::write(both, "late", 4);
    static_cast<void>(written);
    ::close(both);
  });
  CHECK(read_file(pipe, 100, NamedBy::User) == "late");
  late.join();
}

TEST_CASE("a file is written over files only; through a link where the user named that") {
  const TemporaryFolder folder;
  write_file(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  fs::create_directory(folder / "folder");
  CHECK(has(error_of([&] { write_file(folder / "link", "new"); }), "got the link"));
  CHECK(has(error_of([&] { write_file(folder / "dangling", "new"); }), "got the link"));
  CHECK(read_file(folder / "target") == "old");
  write_file(folder / "link", "new", NamedBy::User);
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_file(folder / "target") == "new");
  CHECK(has(error_of([&] { write_file(folder / "dangling", "x", NamedBy::User); }), "link"));
  for (const NamedBy named_by : {NamedBy::Program, NamedBy::User}) {
    CHECK(has(error_of([&] { write_file(folder / "folder", "x", named_by); }), "in its place"));
  }
  CHECK(has(error_of([&] { write_file("/dev/null", "x"); }), "in its place"));
  write_file("/dev/null", "x", NamedBy::User);
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(entries(folder.path()) == 4);
}

TEST_CASE("temporary files of dead processes go, those in use and others' stay") {
  const TemporaryFolder folder;
  const std::string dead = ".regla-0123456789abcdef", used = ".regla-fedcba9876543210";
  CHECK(is_temporary_name(dead));
  for (const char* other :
       {".regla-", ".regla-0123456789abcdeF", ".regla-0123456789abcdef0", "x"}) {
    CHECK_FALSE(is_temporary_name(other));
    std::ofstream(folder / other) << "mine";
  }
  std::ofstream(folder / dead) << "half";
  std::ofstream(folder / used) << "half";
  const Descriptor lock(::open((folder / used).c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::flock(lock.get(), LOCK_EX) == 0);
  AtomicFile first(folder / "a"), second(folder / "a");
  CHECK_FALSE(fs::exists(folder / dead));
  CHECK(fs::exists(folder / used));
  CHECK(entries(folder.path()) == 4 + 1 + 2);
  first.write("first");
  second.write("second");
  first.commit();
  second.commit();
  CHECK(read_file(folder / "a") == "second");
  CHECK(entries(folder.path()) == 4 + 1 + 1);
}

}  // namespace regla
