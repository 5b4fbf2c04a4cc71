#include "storage/tensor_reader.h"

#include <utility>

#include "core/check.h"
#include "storage/json_fields.h"

namespace regla {

TensorReader::TensorReader(const std::filesystem::path& path, std::string_view tag, std::string by)
    : file_(std::string(tag) + " " + path.string()), by_(std::move(by)), source_(path) {
  for (const TensorSource::Entry& entry : source_.entries()) {
    tensors_.emplace(entry.name, Place{&entry});
  }
}

bool TensorReader::has(const std::string& name, const Shape& shape) const {
  const auto found = tensors_.find(name);
  return found != tensors_.end() && found->second.entry->shape == shape;
}

std::optional<DType> TensorReader::type_of(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? std::nullopt : found->second.entry->dtype;
}

Shape TensorReader::with_stored(const std::string& name, const Shape& shape, int axis) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || found->second.entry->shape.rank() != shape.rank()) return shape;
  return shape.with(axis, found->second.entry->shape[axis]);
}

Tensor TensorReader::take(const std::string& name, const Shape& shape, DType dtype) {
  const TensorSource::Entry& entry = find(name, shape, dtype);
  Tensor tensor = Tensor::empty(shape, dtype);
  source_.read(entry, tensor);
  return tensor;
}

void TensorReader::take_into(const std::string& name, Tensor& tensor) {
  source_.read(find(name, tensor.shape(), tensor.dtype()), tensor);
}

void TensorReader::pass_over(const std::string& name) {
  if (const auto found = tensors_.find(name); found != tensors_.end()) {
    found->second.is_taken = true;
  }
}

void TensorReader::finish(std::string_view whole) const {
  for (const auto& [name, place] : tensors_) {
    if (!place.is_taken) fail(where(name), " is no part of ", whole);
  }
}

const TensorSource::Entry& TensorReader::find(const std::string& name, const Shape& shape,
                                              DType dtype) {
  const auto found = tensors_.find(name);
  check(found != tensors_.end(), where(name), " missing");
  const TensorSource::Entry& entry = *found->second.entry;
  check(entry.shape == shape, where(name), " expected the shape ", shape, by_, ", got ",
        entry.shape);
  check(entry.dtype == dtype, where(name), " expected ", name_of(dtype), by_, ", got ", entry.type);
  found->second.is_taken = true;
  return entry;
}

std::string TensorReader::where(const std::string& name) const {
  return file_ + ", tensor " + quoted(name) + ":";
}

}  // namespace regla
