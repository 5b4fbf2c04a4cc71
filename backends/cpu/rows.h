#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/elements.h"
#include "backends/cpu/small_gemm.h"
#include "backends/cpu/streaming.h"

namespace regla::cpu {

/// The rows of one head in a tensor [.., H, N] as numbers of T, however they are stored; none where
/// the tensor is undefined.
template <class T>
class HeadRows {
 public:
  HeadRows() = default;
  /// The rows of the head whose first one is row `first` of the tensor, `pitch` elements apart.
  HeadRows(const Tensor& x, int64_t first, int64_t row_size, int64_t pitch)
      : in_(x), first_(first * row_size), size_(row_size), pitch_(pitch) {}
  explicit operator bool() const { return static_cast<bool>(in_); }
  int64_t size() const { return size_; }

  /// Where the row of a token lies, or `room` with its numbers.
  const T* row(int64_t token, T* room) const {
    return in_.read(first_ + token * pitch_, size_, room);
  }
  /// Copies the rows of `count` tokens without gaps.
  void load(int64_t token, int64_t count, T* to) const {
    for (int64_t t = 0; t < count; ++t) {
      const T* from = row(token + t, to + t * size_);
      if (from != to + t * size_) copy_rows(1, size_, from, size_, to + t * size_, size_);
    }
  }
  /// Brings some elements of a row into the second-level cache.
  void fetch(int64_t token) const { in_.template fetch<2>(first_ + token * pitch_, size_); }

 private:
  Input<T> in_;
  int64_t first_ = 0, size_ = 0, pitch_ = 0;
};

/// The rows of one head in a result; null where nobody wants it.
template <class T>
class Rows {
 public:
  Rows() = default;
  /// The rows of the head whose first one is row `first` of the tensor, `pitch` elements apart.
  Rows(const Sink& sink, int64_t first, int64_t row_size, int64_t pitch)
      : out_(sink), first_(first * row_size), pitch_(pitch) {}
  explicit operator bool() const { return static_cast<bool>(out_); }

  /// Nothing happens where the result is not wanted. Call `streamed` after the last row.
  void put(int64_t token, const T* row, int64_t count) const {
    if (out_) out_.stream_or_add(first_ + token * pitch_, row, count);
  }

 private:
  Output<T> out_;
  int64_t first_ = 0, pitch_ = 0;
};

}  // namespace regla::cpu
