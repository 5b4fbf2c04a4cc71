#include "text/unpack.h"

#include <lzma.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string_view>

#include "core/check.h"
#include "core/files.h"

namespace regla {
namespace {

constexpr size_t kBlock = size_t{1} << 20;

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
  check(status == LZMA_STREAM_END, "[corpus] expected xz data in ", path,
        ", got data that is corrupt or incomplete");
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
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  check(status == Z_STREAM_END, "[corpus] expected gzip data in ", path,
        ", got data that is corrupt or incomplete");
  return out;
}

}  // namespace

std::string read_unpacked(const std::string& path) {
  std::string bytes = read_file(path);
  if (path.ends_with(".xz")) return unpack_xz(bytes, path);
  if (path.ends_with(".gz")) return unpack_gzip(bytes, path);
  return bytes;
}

}  // namespace regla
