#include "core/tensor.h"

#include <limits>

#include "core/kernel_scope.h"
#include "core/memory.h"
#include "core/memory_checks.h"

namespace regla {

struct Tensor::Block {
  Block(size_t size, Device where)
      : bytes(size), device(where), address(memory(where).allocate(size)) {}
  ~Block() { memory(device).release(address, bytes); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  size_t bytes;
  Device device;
  void* address;
};

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.numel_ = shape.numel();
  tensor.dtype_ = dtype;
  tensor.device_ = device;
  if (tensor.numel_ >= std::numeric_limits<int64_t>::max() / 8) {
    throw MemoryError("[tensor] too large: " + shape.text());
  }
  const auto bytes = static_cast<size_t>(tensor.bytes());
  tensor.block_ = std::make_shared<Block>(bytes, device);
  tensor.address_ = tensor.block_->address;
#ifdef REGLA_DEBUG_FILL
  // All bits set is NaN in every float type. As an I32 it would be -1, which is an argmax and a
  // target that is not counted: there it is a number far below 0. Whoever reads it will notice.
  const uint8_t unwritten = dtype == DType::I32 ? 0x80 : 0xff;
  memory(device).fill(tensor.address_, &unwritten, 1, bytes);
  if (device.is_cpu()) mark_unwritten(tensor.address_, bytes);
#endif
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, 0, dtype, device);
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor tensor = empty(shape, dtype, device);
  tensor.fill(value);
  return tensor;
}

template <class T>
Tensor Tensor::of_values(const Shape& shape, const std::vector<T>& values, Device device) {
  check(shape.numel() == static_cast<int64_t>(values.size()), "[tensor] expected ", shape.numel(),
        " values for ", shape, ", got ", values.size());
  Tensor tensor = empty(shape, dtype_of<T>, device);
  const auto bytes = static_cast<size_t>(tensor.bytes());
  if (bytes > 0) memory(device).copy_from_host(tensor.address_, values.data(), bytes);
  return tensor;
}

Tensor Tensor::of(const Shape& shape, const std::vector<float>& values, Device device) {
  return of_values(shape, values, device);
}
Tensor Tensor::of(const Shape& shape, const std::vector<double>& values, Device device) {
  return of_values(shape, values, device);
}
Tensor Tensor::of(const Shape& shape, const std::vector<int32_t>& values, Device device) {
  return of_values(shape, values, device);
}

Tensor Tensor::empty_like(const Tensor& other) {
  return empty(other.shape(), other.dtype(), other.device());
}
Tensor Tensor::zeros_like(const Tensor& other) {
  return zeros(other.shape(), other.dtype(), other.device());
}

void* Tensor::checked(DType dtype, const CodeLocation& where) const {
  check(defined(), "[tensor] expected a defined tensor");
  check(dtype == dtype_, "[tensor] expected ", name_of(dtype), ", got ", name_of(dtype_), " of ",
        shape_);
  return touched(where);
}

void* Tensor::touched(const CodeLocation& where) const {
  if (!device_.is_cpu() && !KernelScope::is_open()) {
    report_stray_read(device_.text() + " " + name_of(dtype_) + " " + shape_.text(), where);
  }
  return address_;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel_, "[reshape] expected ", numel_, " elements as in ", shape_,
        ", got ", shape);
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

Tensor Tensor::unowned() const {
  Tensor view = *this;
  view.block_ = std::shared_ptr<Block>(std::shared_ptr<Block>(), block_.get());
  return view;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  check(rank() > 0 && begin >= 0 && begin <= end && end <= dim(0), "[slice] expected rows inside ",
        shape_, ", got ", begin, " to ", end);
  std::vector<int64_t> sizes(shape_.sizes().begin(), shape_.sizes().end());
  const int64_t row = sizes[0] == 0 ? 0 : numel_ / sizes[0];
  sizes[0] = end - begin;
  Tensor view = *this;
  view.shape_ = Shape(std::span<const int64_t>(sizes));
  view.numel_ = row * (end - begin);
  view.address_ =
      static_cast<char*>(address_) + begin * row * static_cast<int64_t>(size_of(dtype_));
  return view;
}

Tensor Tensor::part(int64_t byte, const Shape& shape, DType dtype) const {
  Tensor view = *this;
  view.shape_ = shape;
  view.numel_ = shape.numel();
  view.dtype_ = dtype;
  view.address_ = static_cast<char*>(address_) + byte;
  check(byte >= 0 && byte % static_cast<int64_t>(size_of(dtype)) == 0 &&
            byte + view.bytes() <= bytes(),
        "[part] expected ", view.bytes(), " bytes inside of ", bytes(), ", got byte ", byte);
  return view;
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor copy = empty_like(*this);
  copy.copy_from(*this);
  return copy;
}

Tensor Tensor::on(Device device) const {
  if (!defined() || device == device_) return *this;
  Tensor copy = empty(shape_, dtype_, device);
  copy.copy_from(*this);
  return copy;
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape_ && source.dtype() == dtype_, "[copy] expected ", name_of(dtype_),
        " ", shape_, ", got ", name_of(source.dtype()), " ", source.shape());
  const auto size = static_cast<size_t>(bytes());
  if (device_ == source.device_) {
    memory(device_).copy(address_, source.address_, size);
  } else if (source.device_.is_cpu()) {
    memory(device_).copy_from_host(address_, source.address_, size);
  } else if (device_.is_cpu()) {
    memory(source.device_).copy_to_host(address_, source.address_, size);
  } else {
    copy_from(source.on(Device{}));
  }
}

void Tensor::fill(double value) {
  for_any_type(dtype_, [&](auto tag) {
    const auto element = static_cast<decltype(tag)>(value);
    memory(device_).fill(address_, &element, sizeof element, static_cast<size_t>(numel_));
  });
}

std::vector<double> Tensor::values_at(int64_t mark) const {
  Memory& there = memory(device_);
  there.wait_for(mark);
  const Tensor here = empty(shape_, dtype_);
  there.copy_to_host_beside(here.address_, address_, static_cast<size_t>(bytes()));
  return here.values();
}

std::vector<double> Tensor::values() const {
  const Tensor here = on(Device{});
  std::vector<double> out(static_cast<size_t>(numel_));
  for_any_type(dtype_, [&](auto tag) {
    const auto* in = here.data<decltype(tag)>();
    for (int64_t i = 0; i < numel_; ++i) out[static_cast<size_t>(i)] = static_cast<double>(in[i]);
  });
  return out;
}

}  // namespace regla
