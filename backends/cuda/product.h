#pragma once

#include "backends/cuda/context.h"

// Products through cuBLASLt, on matrices that need not be whole tensors.
namespace regla::cuda {

/// Row-major matrices of one type: `pitch` elements from row to row, `step` from matrix to matrix.
struct Matrices {
  void* data;
  DType dtype;
  int64_t rows, columns, pitch, step = 0;
  bool is_half = false;  // F16, which no tensor has, in the place of BF16

  /// A tensor of two axes.
  static Matrices of(const Tensor& x) {
    Tensor handle = x;
    return {handle.raw(), x.dtype(), x.dim(0), x.dim(1), x.dim(1)};
  }
};

/// c = op(a) op(b) (+ bias [columns of c] on every row), or c += op(a) op(b), `count` times. Sums
/// are in F64 where c is, else in F32, and c is rounded once; a and b have one type, and the bias
/// has that of c.
struct Product {
  Matrices a, b, c;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  const void* bias = nullptr;
  int64_t count = 1;
};

void multiply(const Context& on, const Product& product);

}  // namespace regla::cuda
