#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/code_location.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"

namespace regla {

/// A handle on dense, row-major memory. Copying a Tensor copies the handle; `clone` copies the
/// elements. There are no strides: `reshape` and `slice` share memory, everything else is new.
/// A default-constructed Tensor is undefined and stands for "absent".
class Tensor {
 public:
  Tensor() = default;

  /// Fresh memory with no particular contents (NaN-filled in debug and test builds).
  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  static Tensor full(const Shape& shape, double value, DType dtype, Device device = {});
  /// Copies host values. `values` must have as many elements as `shape`.
  static Tensor of(const Shape& shape, const std::vector<float>& values, Device device = {});
  static Tensor of(const Shape& shape, const std::vector<double>& values, Device device = {});
  static Tensor of(const Shape& shape, const std::vector<int32_t>& values, Device device = {});
  /// Fresh memory of the same shape, type and device.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);

  bool defined() const { return block_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int64_t bytes() const { return numel_ * static_cast<int64_t>(size_of(dtype_)); }

  /// The first element. An Error when T is not the tensor's type, when the tensor is undefined, or
  /// when it is not on the CPU and no kernel runs (kernel_scope.h).
  template <class T>
  T* data(CodeLocation where = CodeLocation::current()) {
    return static_cast<T*>(checked(dtype_of<T>, where));
  }
  template <class T>
  const T* data(CodeLocation where = CodeLocation::current()) const {
    return static_cast<const T*>(checked(dtype_of<T>, where));
  }
  /// Untyped, for copies and files; null when undefined.
  void* raw(CodeLocation where = CodeLocation::current()) { return touched(where); }
  const void* raw(CodeLocation where = CodeLocation::current()) const { return touched(where); }

  /// The same memory under another shape of equal size.
  Tensor reshape(const Shape& shape) const;
  /// The same memory without a share in it: for whoever knows that it will be there.
  Tensor unowned() const;
  /// Rows [begin, end) of the outermost axis, sharing memory.
  Tensor slice(int64_t begin, int64_t end) const;
  /// A piece of the same memory under a type of its own, from a byte on: for blocks that hold
  /// several things.
  Tensor part(int64_t byte, const Shape& shape, DType dtype) const;
  Tensor clone() const;
  /// A copy on another device; the same handle if it is there.
  Tensor on(Device device) const;
  void fill(double value);
  /// Copies elements of a tensor of the same shape and type, on any device.
  void copy_from(const Tensor& source);
  /// The elements as doubles, copied to the host: for tests and printing.
  std::vector<double> values() const;
  /// The same of elements that were not written since that mark (Memory::set_mark): waits for it
  /// and not for what the device was asked for behind it.
  std::vector<double> values_at(int64_t mark) const;

  /// True when no other handle shares the memory, so that it may be taken over.
  bool unique() const { return block_.use_count() == 1; }
  bool shares_memory_with(const Tensor& other) const { return block_ == other.block_; }

 private:
  struct Block;
  void* checked(DType dtype, const CodeLocation& where) const;
  void* touched(const CodeLocation& where) const;
  template <class T>
  static Tensor of_values(const Shape& shape, const std::vector<T>& values, Device device);

  std::shared_ptr<Block> block_;
  void* address_ = nullptr;
  Shape shape_;
  int64_t numel_ = 0;
  DType dtype_ = DType::F32;
  Device device_;
};

}  // namespace regla
