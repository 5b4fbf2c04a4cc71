#pragma once

#include <vector>

#include "autograd/ops.h"
#include "backends/copies.h"

// Sequences taken apart and put together.
namespace regla::test {

/// Tokens [begin, end) of x [B, T, ...].
inline Tensor tokens(const Tensor& x, int64_t begin, int64_t end) {
  if (!x) return {};
  std::vector<int64_t> sizes(x.shape().sizes().begin(), x.shape().sizes().end());
  sizes[1] = end - begin;
  Tensor part = Tensor::empty(Shape(std::span<const int64_t>(sizes)), x.dtype(), x.device());
  copy_rows(x, begin, end - begin, part, 0);
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
