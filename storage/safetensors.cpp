#include "storage/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "core/check.h"
#include "core/float16.h"
#include "storage/json_fields.h"

namespace regla {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

/// A type of elements, and that of the tensor it is read into if it can be.
struct StoredType {
  std::string_view name;
  int64_t bytes;
  std::optional<DType> dtype;
};
constexpr std::array<StoredType, 17> kTypes = {{{"F32", 4, DType::F32},
                                                {"F64", 8, DType::F64},
                                                {"BF16", 2, DType::BF16},
                                                {"I32", 4, DType::I32},
                                                {"F16", 2, DType::F32},
                                                {"BOOL", 1, {}},
                                                {"U8", 1, {}},
                                                {"I8", 1, {}},
                                                {"F8_E4M3", 1, {}},
                                                {"F8_E5M2", 1, {}},
                                                {"F8_E8M0", 1, {}},
                                                {"I16", 2, {}},
                                                {"U16", 2, {}},
                                                {"U32", 4, {}},
                                                {"I64", 8, {}},
                                                {"U64", 8, {}},
                                                {"C64", 8, {}}}};
constexpr const char* kFloat16 = "F16";

std::span<const StoredType> known(StoredTypes types) {
  const std::span all(kTypes);
  return types == StoredTypes::All ? all : all.first(4);
}

const StoredType& type_from(const Json& value, StoredTypes types, const std::string& where) {
  std::string list;
  for (const StoredType& type : known(types)) {
    if (value.is_string() && value.get_ref<const std::string&>() == type.name) return type;
    list += (list.empty() ? "" : ", ") + std::string(type.name);
  }
  fail(where, " expected a dtype of ", list, ", got ", shown(value));
}

using Entry = TensorSource::Entry;  // a tensor's line of the header

/// What every message begins with.
std::string at(std::string_view source, std::string_view tensor) {
  return "[safetensors] " + std::string(source) + ", tensor " + quoted(tensor) + ":";
}

/// A JSON number as a size; -1 for anything that is none.
int64_t size_from(const Json& value) {
  if (!value.is_number_unsigned()) return -1;
  const auto number = value.get<uint64_t>();
  return number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
             ? static_cast<int64_t>(number)
             : -1;
}

Shape shape_from(const Json& value, const std::string& where) {
  check(value.is_array(), where, " expected a list as shape, got ", shown(value));
  check(value.size() <= Shape::kMaxRank, where, " expected at most ", Shape::kMaxRank,
        " axes, got ", value.size());
  std::vector<int64_t> sizes;
  int64_t numel = 1;
  for (const Json& item : value) {
    sizes.push_back(size_from(item));
    check(sizes.back() >= 0, where, " expected sizes of at least 0 in the shape, got ",
          shown(item));
    check(!__builtin_mul_overflow(numel, sizes.back(), &numel) &&
              numel < std::numeric_limits<int64_t>::max() / 8,
          where, " the shape ", shown(value), " is too large");
  }
  return Shape(std::span<const int64_t>(sizes));
}

Entry entry_from(const std::string& name, const Json& value, int64_t data_bytes, StoredTypes types,
                 const std::string& where) {
  const char* const keys[] = {"dtype", "shape", "data_offsets"};
  check(value.is_object() && value.size() == 3 &&
            std::all_of(std::begin(keys), std::end(keys),
                        [&](const char* key) { return value.contains(key); }),
        where, " expected dtype, shape and data_offsets, got ", shown(value));
  const StoredType& type = type_from(value["dtype"], types, where);
  Entry entry{name, std::string(type.name), type.dtype, shape_from(value["shape"], where), 0, 0};
  const Json& offsets = value["data_offsets"];
  check(offsets.is_array() && offsets.size() == 2, where, " expected two data_offsets, got ",
        shown(offsets));
  entry.begin = size_from(offsets[0]);
  entry.end = size_from(offsets[1]);
  check(entry.begin >= 0 && entry.begin <= entry.end && entry.end <= data_bytes, where,
        " expected data_offsets within the ", data_bytes, " bytes of data, got ", shown(offsets));
  const int64_t bytes = entry.shape.numel() * type.bytes;
  check(entry.end - entry.begin == bytes, where, " expected ", bytes, " bytes for ", entry.type,
        " ", entry.shape, ", got ", entry.end - entry.begin);
  return entry;
}

Metadata metadata_from(const Json& value, std::string_view source) {
  check(value.is_object(), "[safetensors] ", source, ": expected an object as __metadata__, got ",
        shown(value));
  Metadata metadata;
  for (const auto& item : value.items()) {
    check(item.value().is_string(), "[safetensors] ", source,
          ": expected strings in __metadata__, got ", shown(item.value()));
    metadata[item.key()] = item.value().get<std::string>();
  }
  return metadata;
}

/// The header's length, checked against the bytes there are.
uint64_t header_length(std::span<const std::byte> begin, uint64_t size, std::string_view source) {
  check(begin.size() >= kLengthBytes, "[safetensors] ", source, ": cut off after ", begin.size(),
        " bytes, before the header");
  uint64_t length = 0;
  std::memcpy(&length, begin.data(), kLengthBytes);
  check(length <= kMaxHeader, "[safetensors] ", source, ": a header of ", length,
        " bytes is above the limit of ", kMaxHeader);
  check(length <= size - kLengthBytes, "[safetensors] ", source, ": cut off within the header, ",
        length, " bytes expected, ", size - kLengthBytes, " there");
  return length;
}

Json header_json(std::span<const std::byte> bytes, std::string_view source) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  check(text.starts_with('{'), "[safetensors] ", source, ": the header is not a JSON object");
  return parse_json(text, "[safetensors] " + std::string(source) + ":");
}

/// Sorts by place and checks that the tensors cover the data once, without gaps.
void check_layout(std::vector<Entry>& entries, int64_t data_bytes, std::string_view source) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != covered) {
      fail(at(source, entry.name), entry.begin < covered ? " overlaps" : " leaves a gap after",
           " the tensor before it, expected offset ", covered, ", got ", entry.begin);
    }
    covered = entry.end;
  }
  check(covered == data_bytes, "[safetensors] ", source, ": ", data_bytes - covered,
        " bytes after the last tensor");
}

/// The tensors that a header names, in the order of their `data_bytes` bytes.
std::vector<Entry> entries_of(std::span<const std::byte> header_bytes, int64_t data_bytes,
                              std::string_view source, StoredTypes types, Metadata& metadata) {
  const Json header = header_json(header_bytes, source);
  std::vector<Entry> entries;
  for (const auto& item : header.items()) {
    if (item.key() == kMetadata) {
      metadata = metadata_from(item.value(), source);
    } else {
      entries.push_back(
          entry_from(item.key(), item.value(), data_bytes, types, at(source, item.key())));
    }
  }
  check_layout(entries, data_bytes, source);
  return entries;
}

/// Fills `to` with what stands at `offset` of a file; less than that is a file cut off.
void read_at(const Descriptor& file, int64_t offset, std::span<std::byte> to,
             const std::string& source) {
  while (!to.empty()) {
    const ssize_t count = ::pread(file.get(), to.data(), to.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    check(count >= 0, "[safetensors] cannot read ", source, ": ", std::strerror(errno));
    check(count > 0, "[safetensors] ", source, ": cut off after ", offset, " bytes");
    offset += count;
    to = to.subspan(static_cast<size_t>(count));
  }
}

/// Writes the floats that numbers of 16 bits stand for, each before those that are still to be
/// read: `from` is the second half of what begins at `to`.
void widen(std::span<const std::byte> from, std::byte* to) {
  for (size_t at = 0; at < from.size(); at += 2) {
    uint16_t bits = 0;
    std::memcpy(&bits, from.data() + at, sizeof bits);
    const float value = widened_float16(bits);
    std::memcpy(to + 2 * at, &value, sizeof value);
  }
}

Json header_of(std::span<const NamedTensor> tensors, const Metadata& metadata,
               const std::string& file) {
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    check(name != kMetadata && !header.contains(name), at(file, name),
          " a name that is taken already");
    check(tensor.defined(), at(file, name), " expected a defined tensor");
    const auto sizes = tensor.shape().sizes();
    header[name] = {{"dtype", name_of(tensor.dtype())},
                    {"shape", std::vector<int64_t>(sizes.begin(), sizes.end())},
                    {"data_offsets", std::array{offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  return header;
}

}  // namespace

Tensor TensorFile::find(std::string_view name) const {
  for (const NamedTensor& entry : tensors) {
    if (entry.name == name) return entry.tensor;
  }
  return {};
}

TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string_view source) {
  const uint64_t length = header_length(bytes, bytes.size(), source);
  const auto data = bytes.subspan(kLengthBytes + length);
  TensorFile file;
  for (const Entry& entry :
       entries_of(bytes.subspan(kLengthBytes, length), static_cast<int64_t>(data.size()), source,
                  StoredTypes::OfTensors, file.metadata)) {
    Tensor tensor = Tensor::empty(entry.shape, *entry.dtype);
    const auto part = data.subspan(static_cast<size_t>(entry.begin),
                                   static_cast<size_t>(entry.end - entry.begin));
    if (!part.empty()) std::memcpy(tensor.raw(), part.data(), part.size());
    file.tensors.push_back({entry.name, std::move(tensor)});
  }
  return file;
}

TensorSource::TensorSource(const std::filesystem::path& path, StoredTypes types)
    : path_(path), file_(open_file(path, O_RDONLY)) {
  const std::string source = path.string();
  struct stat status {};
  check(::fstat(file_.get(), &status) == 0, "[safetensors] cannot read ", source);
  const auto size = static_cast<uint64_t>(status.st_size);
  std::array<std::byte, kLengthBytes> begin;
  const auto there = std::span(begin).first(std::min(size, kLengthBytes));
  read_at(file_, 0, there, source);
  std::vector<std::byte> header(header_length(there, size, source));
  read_at(file_, kLengthBytes, header, source);
  header_end_ = static_cast<int64_t>(kLengthBytes + header.size());
  entries_ = entries_of(header, status.st_size - header_end_, source, types, metadata_);
}

void TensorSource::read(const Entry& entry, Tensor& tensor) const {
  check(tensor.dtype() == entry.dtype && tensor.shape() == entry.shape,
        at(path_.string(), entry.name), " expected a place of its type and shape");
  Tensor here = tensor.device().is_cpu() ? tensor : Tensor::empty(entry.shape, *entry.dtype);
  const auto bytes = static_cast<size_t>(entry.end - entry.begin);
  // Numbers of half the width fill the back of the tensor first and are widened from the front on.
  std::byte* const end = static_cast<std::byte*>(here.raw()) + here.bytes();
  const std::span to(end - bytes, bytes);
  read_at(file_, header_end_ + entry.begin, to, path_.string());
  if (entry.type == kFloat16) widen(to, static_cast<std::byte*>(here.raw()));
  if (!tensor.device().is_cpu()) tensor.copy_from(here);
}

TensorFile read_safetensors(const std::filesystem::path& path) {
  const TensorSource source(path);
  TensorFile file{.tensors = {}, .metadata = source.metadata()};
  for (const Entry& entry : source.entries()) {
    file.tensors.push_back({entry.name, Tensor::empty(entry.shape, *entry.dtype)});
    source.read(entry, file.tensors.back().tensor);
  }
  return file;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata, NamedBy named_by) {
  std::string header = dumped(header_of(tensors, metadata, path.string()));
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the elements begin at a multiple of 8
  const uint64_t length = header.size();
  AtomicFile file(path, named_by);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const auto& [name, tensor] : tensors) {
    const Tensor here = tensor.on(Device{});
    file.write({static_cast<const std::byte*>(here.raw()), static_cast<size_t>(here.bytes())});
  }
  file.commit();
}

}  // namespace regla
