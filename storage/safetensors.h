#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "storage/files.h"

namespace regla {

/// Safetensors: 8 bytes with the length of a JSON header (little-endian), the header, then the
/// elements of all tensors without gaps. The header gives each tensor's type, shape and place.

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

using Metadata = std::map<std::string, std::string>;

struct TensorFile {
  std::vector<NamedTensor> tensors;  ///< in the order of their bytes
  Metadata metadata;

  /// The tensor of that name, on the same memory, which lives as long as either; or an undefined
  /// one.
  Tensor find(std::string_view name) const;
};

/// Which types of elements a file may have: those of tensors, or whatever other programs write.
enum class StoredTypes { OfTensors, All };

/// A file whose header is read and found right, so that a tensor can be judged by its type and
/// shape before there is memory for its elements. Errors are those of `parse_safetensors`.
class TensorSource {
 public:
  struct Entry {
    std::string name;
    std::string type;            ///< as the header calls it: F32, F16, BOOL, ...
    std::optional<DType> dtype;  ///< of the tensor that `read` fills, F32 for F16; none: unreadable
    Shape shape;
    int64_t begin, end;  ///< bytes from the end of the header
  };

  explicit TensorSource(const std::filesystem::path& path,
                        StoredTypes types = StoredTypes::OfTensors);

  /// In the order of their bytes.
  const std::vector<Entry>& entries() const { return entries_; }
  const Metadata& metadata() const { return metadata_; }
  /// Fills a tensor of the entry's dtype and shape, on any device.
  void read(const Entry& entry, Tensor& tensor) const;

 private:
  std::filesystem::path path_;
  Descriptor file_;
  int64_t header_end_ = 0;  // in bytes
  std::vector<Entry> entries_;
  Metadata metadata_;
};

/// Reads F32, F64, BF16 and I32 tensors of up to five axes. Whatever is wrong with the bytes is one
/// Error that names `source` and, where there is one, the tensor: a header that is cut off, above
/// 100 MB or not JSON, an unknown type, a negative or overflowing shape, offsets that are out of
/// range, overlap or leave gaps, a length that is not shape times type, a name given twice.
TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string_view source);

/// The same for a file. The tensors are copies: the file may change afterwards.
TensorFile read_safetensors(const std::filesystem::path& path);

/// Writes tensors of any device in the order given, each through a copy on the host. The file is
/// complete or absent (AtomicFile): after a full disk, which is an Error, the file that was there
/// before is still there.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata = {}, NamedBy named_by = NamedBy::Program);

}  // namespace regla
