#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/product.h"
#include "core/tensor.h"

namespace regla::cpu {

/// Rows of logits held at once, of `rows` in equal slices: about 16 MB of float, but enough rows
/// that the weights, which every slice reads once more, are worth reading.
inline int64_t slice_rows(int64_t rows, int64_t vocab) {
  const int64_t most = std::clamp<int64_t>((int64_t{4} << 20) / vocab, 384, 1024);
  const int64_t slices = std::max<int64_t>(1, (rows + most - 1) / most);
  return (rows + slices - 1) / slices;
}

/// Rows [begin, begin + rows) of hidden [R, D] and their logits with a weight [vocab, D].
template <class T, class W = T>
struct ScoreSlice {
  const T* hidden;  // of all rows
  const W* weight;
  int64_t begin, rows, vocab, D;
  T* logits;  // [rows, vocab], rows padded(vocab) apart

  ScoreSlice(const Tensor& hidden_rows, const Tensor& weights, int64_t first, int64_t count,
             Tensor& buffer)
      : hidden(hidden_rows.data<T>()),
        weight(weights.data<W>()),
        begin(first),
        rows(count),
        vocab(weights.dim(0)),
        D(weights.dim(1)),
        logits(buffer.data<T>()) {}

  T* row(int64_t r) const { return logits + r * padded(vocab); }

  void compute_logits() const {
    multiply(Product<T, W>{.M = rows,
                           .N = vocab,
                           .K = D,
                           .transpose_b = true,
                           .a = hidden + begin * D,
                           .a_pitch = D,
                           .b = weight,
                           .b_pitch = D,
                           .c = logits,
                           .c_pitch = padded(vocab)});
  }

  /// Once the gradients of the logits are in their place.
  void add_gradients(T* d_hidden, T* d_weight) const {
    multiply(Product<T>{.M = rows,
                        .N = D,
                        .K = vocab,
                        .a = logits,
                        .a_pitch = padded(vocab),
                        .b = weight,
                        .b_pitch = D,
                        .c = d_hidden + begin * D,
                        .c_pitch = D});
    multiply(Product<T>{.M = vocab,
                        .N = D,
                        .K = rows,
                        .transpose_a = true,
                        .a = logits,
                        .a_pitch = padded(vocab),
                        .b = hidden + begin * D,
                        .b_pitch = D,
                        .c = d_weight,
                        .c_pitch = D,
                        .accumulate = begin > 0});
  }
};

}  // namespace regla::cpu
