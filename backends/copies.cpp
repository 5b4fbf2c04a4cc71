#include "backends/copies.h"

#include <algorithm>

#include "backends/kernels.h"

namespace regla {

Tensor converted(const Tensor& x, DType dtype) {
  if (!x.defined() || x.dtype() == dtype) return x;
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  kernels(x.device()).convert(x, y);
  return y;
}

Tensor copied_rows(const Tensor& x, int64_t begin, int64_t count, int64_t capacity) {
  const Shape shape = x.shape().with(1, std::max(count, capacity));
  Tensor rows = Tensor::empty(shape, x.dtype(), x.device());
  copy_rows(x, begin, count, rows, 0);
  return rows;
}

void copy_rows(const Tensor& from, int64_t begin, int64_t count, const Tensor& to, int64_t at) {
  const int64_t B = from.dim(0);
  if (count == 0 || B == 0) return;
  const int64_t row = from.numel() / (B * from.dim(1));
  kernels(from.device())
      .copy_rows({.from = from.reshape({B, from.dim(1), row}),
                  .begin = begin,
                  .count = count,
                  .to = to.reshape({B, to.dim(1), row}),
                  .at = at});
}

}  // namespace regla
