#pragma once

#include <cstdint>
#include <memory>
#include <vector>

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
  static Tensor of(const Shape& shape, const std::vector<float>& values);
  static Tensor of(const Shape& shape, const std::vector<double>& values);
  static Tensor of(const Shape& shape, const std::vector<int32_t>& values);
  /// Fresh memory of the same shape, type and device.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);

  bool defined() const { return memory_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int64_t bytes() const { return numel_ * static_cast<int64_t>(size_of(dtype_)); }

  /// The first element. An Error when T is not the tensor's type or the tensor is undefined.
  template <class T>
  T* data() {
    return static_cast<T*>(checked(dtype_of<T>));
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(checked(dtype_of<T>));
  }
  /// Untyped, for copies and files.
  void* raw() { return address_; }
  const void* raw() const { return address_; }

  /// The same memory under another shape of equal size.
  Tensor reshape(const Shape& shape) const;
  /// Rows [begin, end) of the outermost axis, sharing memory.
  Tensor slice(int64_t begin, int64_t end) const;
  Tensor clone() const;
  /// A copy in another element type, rounded to it (CPU); the same handle if it is that.
  Tensor to(DType dtype) const;
  void fill(double value);
  void copy_from(const Tensor& source);
  /// The elements as doubles, for tests and printing (CPU).
  std::vector<double> values() const;

  /// True when no other handle shares the memory, so that it may be taken over.
  bool unique() const { return memory_.use_count() == 1; }

 private:
  struct Memory;
  void* checked(DType dtype) const;

  std::shared_ptr<Memory> memory_;
  void* address_ = nullptr;
  Shape shape_;
  int64_t numel_ = 0;
  DType dtype_ = DType::F32;
  Device device_;
};

}  // namespace regla
