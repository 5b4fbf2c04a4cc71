#include "text/file_io.h"

#include <fcntl.h>
#include <lzma.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "core/check.h"

namespace regla {
namespace {

constexpr size_t kBlock = size_t{1} << 20;

// A file descriptor that closes itself.
class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  bool close() { return ::close(std::exchange(descriptor_, -1)) == 0; }

 private:
  int descriptor_;
};

const char* reason() { return std::strerror(errno); }

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), std::min(bytes.size(), kBlock << 6));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

std::string unpack_xz(std::string_view packed, const std::string& path) {
  lzma_stream stream = LZMA_STREAM_INIT;
  const std::unique_ptr<lzma_stream, decltype(&lzma_end)> end(&stream, &lzma_end);
  lzma_ret status = lzma_stream_decoder(&stream, UINT64_MAX, LZMA_CONCATENATED);
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  std::string out;
  std::string block(kBlock, '\0');
  while (status == LZMA_OK) {
    stream.next_out = reinterpret_cast<uint8_t*>(block.data());
    stream.avail_out = block.size();
    status = lzma_code(&stream, LZMA_FINISH);
    out.append(block, 0, block.size() - stream.avail_out);
  }
  check(status == LZMA_STREAM_END, "[corpus] expected xz data in ", path,
        ", got data that is corrupt or incomplete");
  return out;
}

std::string unpack_gzip(std::string_view packed, const std::string& path) {
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  z_stream stream{};
  check(inflateInit2(&stream, kGzipOnly) == Z_OK, "[corpus] expected zlib to start, got an error");
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&stream, &inflateEnd);
  std::string out;
  std::string block(kBlock, '\0');
  int status = Z_OK;
  // A gzip file is one or more members; zlib stops behind each of them.
  while (status == Z_OK || (status == Z_STREAM_END && !packed.empty())) {
    if (status == Z_STREAM_END) inflateReset(&stream);
    const size_t offered = std::min<size_t>(packed.size(), std::numeric_limits<uInt>::max());
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream.avail_in = static_cast<uInt>(offered);
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = static_cast<uInt>(block.size());
    status = inflate(&stream, Z_NO_FLUSH);
    packed.remove_prefix(offered - stream.avail_in);
    out.append(block, 0, block.size() - stream.avail_out);
  }
  check(status == Z_STREAM_END, "[corpus] expected gzip data in ", path,
        ", got data that is corrupt or incomplete");
  return out;
}

}  // namespace

std::string read_bytes(const std::string& path) {
  File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check(file.get() >= 0, "[file] expected to read ", path, ", got: ", reason());
  struct stat about {};
  check(::fstat(file.get(), &about) == 0, "[file] expected to read ", path, ", got: ", reason());
  check(S_ISREG(about.st_mode), "[file] expected a file, got ", path);
  std::string out(static_cast<size_t>(about.st_size), '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::read(file.get(), out.data() + done, out.size() - done);
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "[file] expected to read ", path, ", got: ", reason());
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  out.resize(done);
  return out;
}

std::string read_unpacked(const std::string& path) {
  std::string bytes = read_bytes(path);
  if (path.ends_with(".xz")) return unpack_xz(bytes, path);
  if (path.ends_with(".gz")) return unpack_gzip(bytes, path);
  return bytes;
}

void write_atomically(const std::string& path, std::span<const std::string_view> pieces) {
  static std::atomic<int> counter{0};
  const std::string temporary =
      path + "." + std::to_string(::getpid()) + "-" + std::to_string(counter++) + ".tmp";
  File file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  check(file.get() >= 0, "[file] expected to write ", path, ", got: ", reason());
  bool good = true;
  for (const std::string_view piece : pieces) good = good && write_all(file.get(), piece);
  good = good && ::fsync(file.get()) == 0;
  const int written = errno;
  good = file.close() && good;
  if (good && ::rename(temporary.c_str(), path.c_str()) == 0) return;
  const std::string why = good ? reason() : std::strerror(written);
  ::unlink(temporary.c_str());
  fail("[file] expected to write ", path, ", got: ", why);
}

}  // namespace regla
