#include "core/tensor.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/allocator.h"
#include "core/bfloat16.h"
#include "core/memory_checks.h"
#include "core/parallel.h"

namespace regla {

struct Tensor::Memory {
  Memory(size_t size, Device where)
      : bytes(size), device(where), block(allocator(where).allocate(size)) {}
  ~Memory() { allocator(device).release(block, bytes); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  size_t bytes;
  Device device;
  void* block;
};

namespace {

void require_cpu(const Tensor& tensor, const char* what) {
  check(tensor.device().is_cpu(), "[tensor] ", what, " works on the CPU, got ",
        tensor.device().text());
}

/// Elements per block of what only moves memory: enough that a thread is worth waking.
constexpr int64_t kGrain = int64_t{1} << 18;

template <class F>
void for_any_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::F32:
      return f(float{});
    case DType::F64:
      return f(double{});
    case DType::I32:
      return f(int32_t{});
    case DType::BF16:
      return f(BFloat16{});
  }
}

template <class T>
Tensor tensor_of(const Shape& shape, const std::vector<T>& values) {
  check(shape.numel() == static_cast<int64_t>(values.size()), "[tensor] expected ", shape.numel(),
        " values for ", shape, ", got ", values.size());
  Tensor tensor = Tensor::empty(shape, dtype_of<T>);
  if (!values.empty()) std::memcpy(tensor.raw(), values.data(), values.size() * sizeof(T));
  return tensor;
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.numel_ = shape.numel();
  tensor.dtype_ = dtype;
  tensor.device_ = device;
  if (tensor.numel_ >= std::numeric_limits<int64_t>::max() / 8) {
    throw MemoryError("[tensor] too large: " + shape.text());
  }
  tensor.memory_ = std::make_shared<Memory>(static_cast<size_t>(tensor.bytes()), device);
  tensor.address_ = tensor.memory_->block;
#ifdef REGLA_DEBUG_FILL
  // All bits set is NaN in every float type. As an I32 it would be -1, which is an argmax and a
  // target that is not counted: there it is a number far below 0. Whoever reads it will notice.
  if (device.is_cpu()) {
    const auto bytes = static_cast<size_t>(tensor.bytes());
    std::memset(tensor.address_, dtype == DType::I32 ? 0x80 : 0xff, bytes);
    mark_unwritten(tensor.address_, bytes);
  }
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

Tensor Tensor::of(const Shape& shape, const std::vector<float>& values) {
  return tensor_of(shape, values);
}
Tensor Tensor::of(const Shape& shape, const std::vector<double>& values) {
  return tensor_of(shape, values);
}
Tensor Tensor::of(const Shape& shape, const std::vector<int32_t>& values) {
  return tensor_of(shape, values);
}

Tensor Tensor::empty_like(const Tensor& other) {
  return empty(other.shape(), other.dtype(), other.device());
}
Tensor Tensor::zeros_like(const Tensor& other) {
  return zeros(other.shape(), other.dtype(), other.device());
}

void* Tensor::checked(DType dtype) const {
  check(defined(), "[tensor] expected a defined tensor");
  check(dtype == dtype_, "[tensor] expected ", name_of(dtype), ", got ", name_of(dtype_), " of ",
        shape_);
  return address_;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel_, "[reshape] expected ", numel_, " elements as in ", shape_,
        ", got ", shape);
  Tensor view = *this;
  view.shape_ = shape;
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

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor copy = empty_like(*this);
  copy.copy_from(*this);
  return copy;
}

void Tensor::copy_from(const Tensor& source) {
  check(source.shape() == shape_ && source.dtype() == dtype_, "[copy] expected ", name_of(dtype_),
        " ", shape_, ", got ", name_of(source.dtype()), " ", source.shape());
  require_cpu(*this, "copy");
  require_cpu(source, "copy");
  auto* to = static_cast<char*>(address_);
  const auto* from = static_cast<const char*>(source.address_);
  parallel_for(bytes(), kGrain * 4, [=](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

Tensor Tensor::to(DType dtype) const {
  if (!defined() || dtype == dtype_) return *this;
  require_cpu(*this, "conversion");
  Tensor converted = empty(shape_, dtype, device_);
  for_any_type(dtype_, [&](auto from) {
    for_any_type(dtype, [&](auto to) {
      const auto* in = data<decltype(from)>();
      auto* out = converted.data<decltype(to)>();
      parallel_for(numel_, kGrain, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = static_cast<decltype(to)>(in[i]);
      });
    });
  });
  return converted;
}

void Tensor::fill(double value) {
  require_cpu(*this, "fill");
  for_any_type(dtype_, [&](auto tag) {
    auto* element = data<decltype(tag)>();
    parallel_for(numel_, kGrain, [=](int64_t begin, int64_t end) {
      std::fill(element + begin, element + end, static_cast<decltype(tag)>(value));
    });
  });
}

std::vector<double> Tensor::values() const {
  require_cpu(*this, "reading values");
  std::vector<double> out(static_cast<size_t>(numel_));
  for_any_type(dtype_, [&](auto tag) {
    const auto* in = data<decltype(tag)>();
    for (int64_t i = 0; i < numel_; ++i) out[static_cast<size_t>(i)] = static_cast<double>(in[i]);
  });
  return out;
}

}  // namespace regla
