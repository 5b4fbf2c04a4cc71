#pragma once

#include <cstdint>

#include "backends/cpu/streaming.h"
#include "backends/sink.h"

namespace regla::cpu {

/// The rows of one head's gradient in a tensor; null where nobody wants it.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t pitch = 0;
  bool accumulate = false;

  Rows() = default;
  /// The rows of the head whose first one is row `first` of the tensor, `pitch` apart.
  Rows(Sink sink, int64_t first, int64_t row_size, int64_t row_pitch)
      : pitch(row_pitch), accumulate(sink.accumulate) {
    if (sink) data = sink.tensor.data<T>() + first * row_size;
  }
  explicit operator bool() const { return data != nullptr; }

  /// Nothing happens where the gradient is not wanted. Call `streamed` after the last row.
  void put(int64_t token, const T* row, int64_t count) const {
    if (data == nullptr) return;
    T* to = data + token * pitch;
    if (!accumulate) return stream(row, count, to);
    for (int64_t n = 0; n < count; ++n) to[n] += row[n];
  }
};

}  // namespace regla::cpu
