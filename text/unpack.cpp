#include "text/unpack.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <string_view>

#include "core/check.h"
#include "storage/files.h"
#include "text/file_format.h"

namespace regla {
namespace {

namespace fs = std::filesystem;
using Kind = FileFormat::Kind;

constexpr size_t kBlock = size_t{1} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr const char* kCorrupt = ", got data that is corrupt or incomplete";

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
  if (status == LZMA_MEM_ERROR) throw std::bad_alloc();
  check(status == LZMA_STREAM_END, "[corpus] expected xz data in ", path, kCorrupt);
  return out;
}

std::string unpack_gzip(std::string_view packed, const std::string& path) {
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  z_stream stream{};
  const int started = inflateInit2(&stream, kGzipOnly);
  if (started == Z_MEM_ERROR) throw std::bad_alloc();
  check(started == Z_OK, "[corpus] expected zlib to start, got an error");
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&stream, &inflateEnd);
  std::string out;
  std::string block(kBlock, '\0');
  int status = Z_OK;
  // A gzip file is one or more members, then perhaps zeros, as tapes pad it; zlib stops behind each
  // member.
  const auto more = [&] { return packed.find_first_not_of('\0') != std::string_view::npos; };
  while (status == Z_OK || (status == Z_STREAM_END && more())) {
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
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  check(status == Z_STREAM_END, "[corpus] expected gzip data in ", path, kCorrupt);
  return out;
}

std::string what_is(const std::string& path) {
  using fs::file_type;
  std::error_code error, ignored;
  switch (fs::status(path, error).type()) {
    case file_type::regular:
      return "a file";
    case file_type::directory:
      return "a folder";
    case file_type::fifo:
      return "a pipe; write its text to a file first";
    case file_type::socket:
      return "a socket";
    case file_type::not_found:
      return fs::is_symlink(fs::symlink_status(path, ignored)) ? "a link to nothing"
                                                               : "which does not exist";
    default:
      return error ? error.message() : "a device";
  }
}

}  // namespace

void require_regular(const std::string& path, const char* expected) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return;
  fail("[corpus] expected ", expected, ", got ", path, ", ", what_is(path));
}

std::string read_stored(const std::string& path) {
  require_regular(path);
  std::string stored = read_file(path);
  const FileFormat format = format_of(stored);
  if (format.kind == Kind::Filtered || format.kind == Kind::Archive) {
    fail("[corpus] expected text in UTF-8, got ", format.name, " in ", path,
         "; make it text with: ", command_for(format, path));
  }
  const bool xz = path.ends_with(".xz");
  check(format.kind != Kind::Text || !(xz || path.ends_with(".gz")), "[corpus] expected ",
        xz ? "xz" : "gzip", " data in ", path, kCorrupt);
  return stored;
}

std::string unpack(std::string stored, const std::string& path) {
  const FileFormat format = format_of(stored);
  if (format.kind != Kind::Text) {
    stored = format.kind == Kind::Xz ? unpack_xz(stored, path) : unpack_gzip(stored, path);
    const FileFormat inner = format_of(stored);
    if (inner.kind != Kind::Text) {
      fail("[corpus] expected text in UTF-8, got ", inner.name, " packed with ", format.name,
           " in ", path, "; unpack it with: ", command_for(format, path));
    }
  }
  if (stored.starts_with(kByteOrderMark)) stored.erase(0, kByteOrderMark.size());
  return stored;
}

}  // namespace regla
