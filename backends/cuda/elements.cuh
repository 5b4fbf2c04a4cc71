#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "backends/sink.h"
#include "core/check.h"
#include "core/tensor.h"

// How kernels read and write numbers: computed and summed in S, stored in S or, narrow, in BF16.
// Which of the two is a value of the view, not a type: all threads take the same side of the
// branch, and a kernel of three tensors is compiled once instead of eight times. Where many loads
// have to be under way at once it is a type (`Typed`): behind a branch each is waited for.
namespace regla::cuda {

/// Elements that one thread loads at once where it can: 16 bytes of float, 8 of BF16; and 16 bytes
/// of BF16.
constexpr int kWide = 4, kWidest = 8;

/// Calls `f` with a tag of the type that numbers of `dtype` are computed in.
template <class F>
void for_sum_type(DType dtype, const char* who, F&& f) {
  for_float_type(dtype == DType::BF16 ? DType::F32 : dtype, who, std::forward<F>(f));
}

/// Whether every tensor that is defined begins where W of its elements may be loaded at once, by 16
/// bytes at most.
template <int W, class... Tensors>
bool are_aligned(const Tensors&... tensors) {
  const auto is_aligned = [](const Tensor& x) {
    const size_t bytes = std::min<size_t>(16, W * size_of(x.dtype()));
    return !x.defined() || reinterpret_cast<uintptr_t>(x.raw()) % bytes == 0;
  };
  return (is_aligned(tensors) && ...);
}

/// Calls `f` with the number of elements to load at once, as a type: `kWide`, or 1 where rows of
/// `row` elements or the addresses do not allow it. In double, which only tests use, it is 1.
template <class S, class F, class... Tensors>
void for_width(int64_t row, F&& f, const Tensors&... tensors) {
  if constexpr (std::is_same_v<S, float>) {
    if (row % kWide == 0 && are_aligned<kWide>(tensors...)) {
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

/// W elements as they are stored, which one load of up to 16 bytes brings, or several.
template <class T, int W>
struct alignas(std::min<size_t>(16, W * sizeof(T))) Pack {
  T v[W];
};

/// The numbers of a tensor of a type that is known when a kernel is compiled, to read; null for an
/// undefined one.
template <class T>
class Typed {
 public:
  static constexpr bool kIsNarrow = std::is_same_v<T, __nv_bfloat16>;
  using S = std::conditional_t<kIsNarrow, float, T>;
  template <int W>
  using Raw = Pack<T, W>;

  explicit Typed(const Tensor& x) : data_(static_cast<const T*>(storage_of<S>(x))) {
    check(!x.defined() || x.dtype() == (kIsNarrow ? DType::BF16 : dtype_of<S>),
          "[cuda] a kernel cannot read ", name_of(x.dtype()), " here");
  }

  __host__ __device__ explicit operator bool() const { return data_ != nullptr; }
  __device__ S operator[](int64_t i) const { return static_cast<S>(data_[i]); }

  /// v = elements [i, i + W), i a multiple of W.
  template <int W>
  __device__ void load(int64_t i, S (&v)[W]) const {
    Raw<W> raw;
    fetch<W>(i, raw);
    unpack<W>(raw, v);
  }

  /// The two halves of `load`: whoever fetches all before unpacking the first waits once.
  template <int W>
  __device__ void fetch(int64_t i, Raw<W>& raw) const {
    raw = *reinterpret_cast<const Raw<W>*>(data_ + i);
  }
  template <int W>
  __device__ static void unpack(const Raw<W>& raw, S (&v)[W]) {
#pragma unroll
    for (int w = 0; w < W; ++w) v[w] = static_cast<S>(raw.v[w]);
  }

 private:
  const T* data_;
};

/// The numbers of a tensor, to read; null for an undefined one.
template <class S_>
class Elements {
 public:
  using S = S_;
  /// W elements as they lie in memory: `kWide` of BF16 take the first two words.
  template <int W>
  using Raw = std::conditional_t<W == 1, S, uint4>;

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
    Raw<W> raw;
    fetch<W>(i, raw);
    unpack<W>(raw, v);
  }

  /// The two halves of `load`: whoever fetches all before unpacking the first waits once.
  template <int W>
  __device__ void fetch(int64_t i, Raw<W>& raw) const {
    if constexpr (W == 1) {
      raw = (*this)[i];
    } else {
      static_assert(W == kWide && std::is_same_v<S, float>);
      if (is_narrow_) {
        const uint2 half =
            *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(data_) + i);
        raw.x = half.x;
        raw.y = half.y;
      } else {
        raw = *reinterpret_cast<const uint4*>(static_cast<const float*>(data_) + i);
      }
    }
  }
  template <int W>
  __device__ void unpack(const Raw<W>& raw, S (&v)[W]) const {
    if constexpr (W == 1) {
      v[0] = raw;
    } else {
      v[0] = __uint_as_float(is_narrow_ ? raw.x << 16 : raw.x);
      v[1] = __uint_as_float(is_narrow_ ? raw.x & 0xffff0000u : raw.y);
      v[2] = __uint_as_float(is_narrow_ ? raw.y << 16 : raw.z);
      v[3] = __uint_as_float(is_narrow_ ? raw.y & 0xffff0000u : raw.w);
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

  __device__ Result(void* data, bool is_narrow) : data_(data), is_narrow_(is_narrow) {}

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
      if (!accumulates_) return set(i, v);
      S sum[W];
      before(i, sum);
#pragma unroll
      for (int w = 0; w < W; ++w) sum[w] += v[w];
      set(i, sum);
    }
  }

  /// The two halves of `put`, for whoever asks for all that is there before the first result: v =
  /// what elements [i, i + W) grow from, 0 where they are replaced; and elements [i, i + W) = v.
  template <int W>
  __device__ void before(int64_t i, S (&v)[W]) const {
    constexpr int kStep = std::min(W, kWide);
#pragma unroll
    for (int w = 0; w < W; ++w) v[w] = 0;
    if (!accumulates_) return;
#pragma unroll
    for (int at = 0; at < W; at += kStep) {
      S some[kStep];
      Elements<S>(data_, is_narrow_).load(i + at, some);
#pragma unroll
      for (int w = 0; w < kStep; ++w) v[at + w] = some[w];
    }
  }
  template <int W>
  __device__ void set(int64_t i, const S (&v)[W]) const {
    if constexpr (W == 1) {
      Result(data_, is_narrow_).put(i, v[0]);
    } else {
      static_assert(W % kWide == 0 && std::is_same_v<S, float>);
      const size_t to =
          __cvta_generic_to_global(data_) + static_cast<size_t>(i) * (is_narrow_ ? 2 : 4);
      store(to, is_narrow_, v);
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
  static __device__ uint32_t rounded(float first, float second) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const uint32_t&>(both);
  }
  // One of two instructions is skipped; of a branch the compiler makes more and narrower ones.
  static __device__ void store(size_t to, bool is_narrow, const float (&v)[4]) {
    asm volatile(
        "{ .reg .pred n; setp.ne.b32 n, %1, 0; @n st.global.v2.b32 [%0], {%2,%3};"
        " @!n st.global.v4.f32 [%0], {%4,%5,%6,%7}; }" ::"l"(to),
        "r"(int{is_narrow}), "r"(rounded(v[0], v[1])), "r"(rounded(v[2], v[3])), "f"(v[0]),
        "f"(v[1]), "f"(v[2]), "f"(v[3])
        : "memory");
  }
  static __device__ void store(size_t to, bool is_narrow, const float (&v)[8]) {
    asm volatile(
        "{ .reg .pred n; setp.ne.b32 n, %1, 0; @n st.global.v4.b32 [%0], {%2,%3,%4,%5};"
        " @!n st.global.v4.f32 [%0], {%6,%7,%8,%9};"
        " @!n st.global.v4.f32 [%0+16], {%10,%11,%12,%13}; }" ::"l"(to),
        "r"(int{is_narrow}), "r"(rounded(v[0], v[1])), "r"(rounded(v[2], v[3])),
        "r"(rounded(v[4], v[5])), "r"(rounded(v[6], v[7])), "f"(v[0]), "f"(v[1]), "f"(v[2]),
        "f"(v[3]), "f"(v[4]), "f"(v[5]), "f"(v[6]), "f"(v[7])
        : "memory");
  }

  void* data_ = nullptr;
  bool is_narrow_ = false, accumulates_ = false;
};

/// How the elements of a tensor are loaded: T is their type, W are loaded at once.
template <class T, int W>
struct Loads {
  using View = Typed<T>;
  static constexpr int kWidth = W;
};

/// Calls `f` with the Loads for rows of `row` elements of x, beside which other tensors are read or
/// written. S is the type that they are computed in.
template <class S, class F, class... Tensors>
void for_loads(int64_t row, F&& f, const Tensor& x, const Tensors&... beside) {
  if constexpr (std::is_same_v<S, float>) {
    if (x.dtype() == DType::BF16) {
      if (row % kWidest == 0 && are_aligned<kWidest>(x, beside...)) {
        return f(Loads<__nv_bfloat16, kWidest>{});
      }
      return f(Loads<__nv_bfloat16, 1>{});
    }
    if (row % kWide == 0 && are_aligned<kWide>(x, beside...)) return f(Loads<float, kWide>{});
  }
  f(Loads<S, 1>{});
}

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
