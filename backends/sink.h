#pragma once

#include "core/tensor.h"

namespace regla {

/// Where a kernel puts a gradient. `accumulate` false: the memory holds nothing yet, write;
/// true: add. An undefined tensor means that nobody wants this gradient.
struct Sink {
  Tensor tensor;
  bool accumulate = false;

  explicit operator bool() const { return tensor.defined(); }
};

/// The same for a gradient of rows [R, N] that may lie beside others: it is columns [first, first +
/// N) of the matrix.
struct RowsSink {
  Sink matrix;  // [R, N or more]
  int64_t first = 0;

  explicit operator bool() const { return matrix.tensor.defined(); }
};

/// The same for the gradient of what a linear layer gave, and the sums of its columns, which are
/// the gradient of the layer's bias. Where `sums` is defined, rows are written, not added to.
struct LinearSink {
  RowsSink rows;
  Sink sums;  // [N]

  explicit operator bool() const { return static_cast<bool>(rows); }
};

}  // namespace regla
