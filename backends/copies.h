#pragma once

#include "core/tensor.h"

// Copies that take a kernel: in another type, or of rows in the midst.
namespace regla {

/// A copy in another element type, rounded to it; the same handle if it is of that type or
/// undefined.
Tensor converted(const Tensor& x, DType dtype);

/// A copy of rows [begin, begin + count) of the second axis of `x`, before room for `capacity` of
/// them (0: for these alone).
Tensor copied_rows(const Tensor& x, int64_t begin, int64_t count, int64_t capacity = 0);

/// Rows [begin, begin + count) of the second axis of `from` become those at `at` of `to`. All other
/// axes and the types are equal.
void copy_rows(const Tensor& from, int64_t begin, int64_t count, const Tensor& to, int64_t at);

}  // namespace regla
