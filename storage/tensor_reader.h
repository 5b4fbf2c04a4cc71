#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "storage/safetensors.h"

namespace regla {

/// Reads a file's tensors by name, each held to a shape and a type before there is memory for it,
/// and knows which were not asked for. Errors begin with a tag, the file and the tensor.
class TensorReader {
 public:
  /// `tag` is "[checkpoint]"; `by` says what expects shapes and types: " by config.json", or
  /// nothing.
  TensorReader(const std::filesystem::path& path, std::string_view tag, std::string by = "");

  const Metadata& metadata() const { return source_.metadata(); }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  bool has(const std::string& name, const Shape& shape) const;
  /// None where there is no such tensor.
  std::optional<DType> type_of(const std::string& name) const;
  /// `shape` with as many along an axis as the file's tensor has there, if it has that many axes.
  Shape with_stored(const std::string& name, const Shape& shape, int axis) const;

  /// A tensor on the host.
  Tensor take(const std::string& name, const Shape& shape, DType dtype);
  /// Fills a tensor of any device with the one that has its shape and type.
  void take_into(const std::string& name, Tensor& tensor);
  /// Leaves out a tensor that may be there.
  void pass_over(const std::string& name);
  /// An Error when a tensor is left: it "is no part of" `whole`.
  void finish(std::string_view whole) const;

 private:
  struct Place {
    const TensorSource::Entry* entry;
    bool is_taken = false;  // more than once is fine: a part may make a parameter anew
  };

  const TensorSource::Entry& find(const std::string& name, const Shape& shape, DType dtype);
  std::string where(const std::string& name) const;

  std::string file_, by_;
  TensorSource source_;
  std::map<std::string, Place> tensors_;
};

}  // namespace regla
