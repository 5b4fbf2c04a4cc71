#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/product.h"

// Scores over a vocabulary in slices of rows: those of a slice, and two products of their
// gradients.
namespace regla::cuda {

/// Rows of a slice, of `rows` in equal parts: the more, the less often the gradient of the weights,
/// which each slice adds to, is read and written; at most 2^28 scores.
inline int64_t slice_rows(int64_t rows, int64_t pitch) {
  constexpr int64_t kMostScores = int64_t{1} << 28, kTile = 128;
  const int64_t most = std::max(kMostScores / pitch, kTile), slices = (rows + most - 1) / most;
  return std::min(rows, ((rows + slices - 1) / slices + kTile - 1) / kTile * kTile);
}

/// Elements from row to row: cuBLASLt is fastest where every row begins at 16 bytes.
inline int64_t padded(int64_t vocab) { return (vocab + 7) / 8 * 8; }

/// Rows [begin, end) of hidden [R, D] beside a weight [vocab, D] of the same type. Scores and their
/// gradients lie in the first rows of buffers [most, pitch].
struct ScoreSlice {
  const Context& on;
  const Tensor &hidden, &weight;
  int64_t begin, end;

  /// Without what pads the rows.
  Matrices part_of(const Tensor& buffer) const {
    Matrices part = Matrices::of(buffer);
    part.rows = end - begin;
    part.columns = weight.dim(0);
    return part;
  }
  Matrices rows() const { return Matrices::of(hidden.slice(begin, end)); }

  void compute(const Tensor& scores) const {
    multiply(on,
             {.a = rows(), .b = Matrices::of(weight), .c = part_of(scores), .transpose_b = true});
  }

  void add_gradients(const Tensor& d_scores, const Tensor& d_hidden, const Tensor& d_weight) const {
    multiply(on, {.a = part_of(d_scores),
                  .b = Matrices::of(weight),
                  .c = Matrices::of(d_hidden.slice(begin, end))});
    multiply(on, {.a = part_of(d_scores),
                  .b = rows(),
                  .c = Matrices::of(d_weight),
                  .transpose_a = true,
                  .accumulate = begin > 0});
  }
};

}  // namespace regla::cuda
