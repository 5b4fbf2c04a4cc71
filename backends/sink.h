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

}  // namespace regla
