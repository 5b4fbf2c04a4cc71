#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bfloat16.h"
#include "core/check.h"

namespace regla {

/// Element types. F64 exists so that gradients can be checked in double; BF16 (bfloat16.h) is a
/// type of activations and of weights as products read them, never one that sums are taken in.
enum class DType : uint8_t { F32, F64, BF16, I32 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 8;
    case DType::BF16:
      return 2;
    default:
      return 4;
  }
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "F32";
    case DType::F64:
      return "F64";
    case DType::BF16:
      return "BF16";
    default:
      return "I32";
  }
}

/// S beside activations of type A (backends/kernels.h): what sums of such values are taken in.
constexpr DType sum_type(DType activations) {
  return activations == DType::BF16 ? DType::F32 : activations;
}

template <class T>
constexpr DType dtype_of = DType::F32;
template <>
inline constexpr DType dtype_of<double> = DType::F64;
template <>
inline constexpr DType dtype_of<int32_t> = DType::I32;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::BF16;

/// Calls `f` with a float or a double (as a tag), whichever `dtype` names; an Error for the others.
template <class F>
void for_float_type(DType dtype, const char* who, F&& f) {
  if (dtype == DType::F32) {
    f(float{});
  } else if (dtype == DType::F64) {
    f(double{});
  } else {
    fail("[", who, "] expected F32 or F64, got ", name_of(dtype));
  }
}

/// The same with a tag of whichever type it is.
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

}  // namespace regla
