#pragma once

#include <cstring>
#include <vector>

#include "autograd/ops.h"

// Sequences taken apart and put together.
namespace regla::test {

/// Tokens [begin, end) of x [B, T, ...].
inline Tensor tokens(const Tensor& x, int64_t begin, int64_t end) {
  if (!x) return {};
  std::vector<int64_t> sizes(x.shape().sizes().begin(), x.shape().sizes().end());
  sizes[1] = end - begin;
  Tensor part = Tensor::empty(Shape(std::span<const int64_t>(sizes)), x.dtype());
  if (part.numel() == 0) return part;
  const auto row = static_cast<size_t>(part.bytes() / (x.dim(0) * (end - begin)));
  for (int64_t b = 0; b < x.dim(0); ++b) {
    std::memcpy(static_cast<char*>(part.raw()) + static_cast<size_t>(b * (end - begin)) * row,
                static_cast<const char*>(x.raw()) + static_cast<size_t>(b * x.dim(1) + begin) * row,
                static_cast<size_t>(end - begin) * row);
  }
  return part;
}

/// Parts [B, ., ...] one after the other along the second axis.
inline Tensor joined(const Tensors& parts) {
  const NoGrad guard;
  Var whole;
  for (const Tensor& part : parts) whole = concatenate(whole, part);
  return whole.value;
}

}  // namespace regla::test
