#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "backends/sink.h"
#include "core/check.h"
#include "core/tensor.h"

// How kernels read and write numbers: computed and summed in S, stored in S or, narrow, in BF16.
// Which of the two is a value of the view, not a type: all threads take the same side of the
// branch, and a kernel of three tensors is compiled once instead of eight times.
namespace regla::cuda {

/// Elements that one thread loads at once where it can: 16 bytes of float, 8 of BF16.
constexpr int kWide = 4;

/// Calls `f` with a tag of the type that numbers of `dtype` are computed in.
template <class F>
void for_sum_type(DType dtype, const char* who, F&& f) {
  for_float_type(dtype == DType::BF16 ? DType::F32 : dtype, who, std::forward<F>(f));
}

/// Whether every tensor that is defined begins where `kWide` of its elements may be loaded at once.
template <class... Tensors>
bool are_aligned(const Tensors&... tensors) {
  const auto is_aligned = [](const Tensor& x) {
    return !x.defined() || reinterpret_cast<uintptr_t>(x.raw()) % (kWide * size_of(x.dtype())) == 0;
  };
  return (is_aligned(tensors) && ...);
}

/// Calls `f` with the number of elements to load at once, as a type: `kWide`, or 1 where rows of
/// `row` elements or the addresses do not allow it. In double, which only tests use, it is 1.
template <class S, class F, class... Tensors>
void for_width(int64_t row, F&& f, const Tensors&... tensors) {
  if constexpr (std::is_same_v<S, float>) {
    if (row % kWide == 0 && are_aligned(tensors...)) {
      return f(std::integral_constant<int, kWide>{});
    }
  }
  f(std::integral_constant<int, 1>{});
}

/// A tensor's storage, without a promise to leave it alone.
template <class S>
void* storage_of(const Tensor& x) {
  if (!x.defined()) return nullptr;
  constexpr bool kMayBeNarrow = std::is_same_v<S, float>;
  check(x.dtype() == dtype_of<S> || (kMayBeNarrow && x.dtype() == DType::BF16),
        "[cuda] a kernel cannot read ", name_of(x.dtype()), " here");
  Tensor handle = x;
  return handle.raw();
}

/// The numbers of a tensor, to read; null for an undefined one.
template <class S>
class Elements {
 public:
  Elements() = default;
  explicit Elements(const Tensor& x)
      : data_(storage_of<S>(x)), is_narrow_(x.defined() && x.dtype() == DType::BF16) {}

  __device__ Elements(const void* data, bool is_narrow) : data_(data), is_narrow_(is_narrow) {}

  __host__ __device__ explicit operator bool() const { return data_ != nullptr; }

  __device__ S operator[](int64_t i) const {
    if constexpr (std::is_same_v<S, float>) {
      if (is_narrow_) return __bfloat162float(static_cast<const __nv_bfloat16*>(data_)[i]);
    }
    return static_cast<const S*>(data_)[i];
  }

  /// v = elements [i, i + W), i a multiple of W.
  template <int W>
  __device__ void load(int64_t i, S (&v)[W]) const {
    if constexpr (W == 1) {
      v[0] = (*this)[i];
    } else {
      static_assert(W == kWide && std::is_same_v<S, float>);
      if (is_narrow_) {
        const uint2 raw =
            *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(data_) + i);
        v[0] = __uint_as_float(raw.x << 16);
        v[1] = __uint_as_float(raw.x & 0xffff0000u);
        v[2] = __uint_as_float(raw.y << 16);
        v[3] = __uint_as_float(raw.y & 0xffff0000u);
      } else {
        const float4 raw = *reinterpret_cast<const float4*>(static_cast<const float*>(data_) + i);
        v[0] = raw.x;
        v[1] = raw.y;
        v[2] = raw.z;
        v[3] = raw.w;
      }
    }
  }

 private:
  const void* data_ = nullptr;
  bool is_narrow_ = false;
};

/// Where results go, as a sink says: nowhere, in place of what was there, or on top of it.
template <class S>
class Result {
 public:
  Result() = default;
  explicit Result(const Sink& sink)
      : data_(storage_of<S>(sink.tensor)),
        is_narrow_(sink && sink.tensor.dtype() == DType::BF16),
        accumulates_(sink.accumulate) {}
  explicit Result(const Tensor& x) : Result(Sink{x}) {}

  __host__ __device__ explicit operator bool() const { return data_ != nullptr; }

  /// Its elements where they are in BF16 and nothing is added to them: whoever rounds may write
  /// them. Null otherwise.
  __device__ __nv_bfloat16* plain() const {
    return is_narrow_ && !accumulates_ ? static_cast<__nv_bfloat16*>(data_) : nullptr;
  }

  /// Elements [i, i + W) become v, or grow by it; i is a multiple of W.
  template <int W>
  __device__ void put(int64_t i, const S (&v)[W]) const {
    if constexpr (W == 1) {
      put(i, v[0]);
    } else {
      static_assert(W == kWide && std::is_same_v<S, float>);
      float w[W] = {v[0], v[1], v[2], v[3]};
      if (accumulates_) {
        float before[W];
        Elements<S>(data_, is_narrow_).load(i, before);
        for (int n = 0; n < W; ++n) w[n] += before[n];
      }
      if (is_narrow_) {
        const __nv_bfloat162 low = __floats2bfloat162_rn(w[0], w[1]);
        const __nv_bfloat162 high = __floats2bfloat162_rn(w[2], w[3]);
        *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(data_) + i) =
            make_uint2(bits(low), bits(high));
      } else {
        *reinterpret_cast<float4*>(static_cast<float*>(data_) + i) =
            make_float4(w[0], w[1], w[2], w[3]);
      }
    }
  }

  __device__ void put(int64_t i, S v) const {
    if constexpr (std::is_same_v<S, float>) {
      if (is_narrow_) {
        auto& place = static_cast<__nv_bfloat16*>(data_)[i];
        place = __float2bfloat16_rn(accumulates_ ? __bfloat162float(place) + v : v);
        return;
      }
    }
    S& place = static_cast<S*>(data_)[i];
    place = accumulates_ ? place + v : v;
  }

 private:
  static __device__ uint32_t bits(const __nv_bfloat162& x) {
    return *reinterpret_cast<const uint32_t*>(&x);
  }

  void* data_ = nullptr;
  bool is_narrow_ = false, accumulates_ = false;
};

/// Numbers of a tensor of any float type, in double.
class Numbers {
 public:
  explicit Numbers(const Tensor& x) : dtype_(x.dtype()) {
    Tensor handle = x;
    data_ = handle.raw();
  }

  __device__ double get(int64_t i) const {
    if (dtype_ == DType::F64) return static_cast<const double*>(data_)[i];
    if (dtype_ == DType::F32) return static_cast<const float*>(data_)[i];
    return __bfloat162float(static_cast<const __nv_bfloat16*>(data_)[i]);
  }
  __device__ void set(int64_t i, double value) const {
    if (dtype_ == DType::F64) {
      static_cast<double*>(data_)[i] = value;
    } else if (dtype_ == DType::F32) {
      static_cast<float*>(data_)[i] = static_cast<float>(value);
    } else {
      static_cast<__nv_bfloat16*>(data_)[i] = __double2bfloat16(value);
    }
  }

 private:
  void* data_;
  DType dtype_;
};

}  // namespace regla::cuda
