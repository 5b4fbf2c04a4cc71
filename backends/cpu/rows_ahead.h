#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/rows.h"

namespace regla::cpu {

/// Brings what the next chunk reads into the second-level cache while this one is worked on. The
/// processor cannot guess it: the rows of a head are short and far apart.
///
/// A few at a time between products, for if all are asked for at once they wait for each other.
template <class T>
class RowsAhead {
 public:
  /// Forgets what was added; `count` rows of each matrix, from token `first` on, will be fetched in
  /// `steps` calls.
  void start(int64_t first, int64_t count, int64_t steps) {
    matrices_ = 0;
    state_ = nullptr;
    first_ = first;
    next_ = 0;
    count_ = count;
    at_once_ = (count + steps - 1) / steps;
  }

  void add(const HeadRows<T>& rows) {
    if (rows && count_ > 0) matrix_[matrices_++] = rows;
  }

  /// All of `size` elements in one piece, in as many parts as there are rows; null: none.
  void add(const T* state, int64_t size) {
    if (count_ == 0) return;
    state_ = state;
    part_ = (size + count_ - 1) / count_;
  }

  void fetch() {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t end = std::min(count_, next_ + at_once_);
    for (int m = 0; m < matrices_; ++m) {
      // Not into the first-level cache, whose 32 KB the products need.
      for (int64_t r = next_; r < end; ++r) matrix_[m].fetch(first_ + r);
    }
    if (state_ != nullptr) {
      for (int64_t i = next_ * part_; i < end * part_; i += kLine) {
        __builtin_prefetch(state_ + i, 0, 2);
      }
    }
    next_ = end;
  }

 private:
  static constexpr int kMost = 8;
  HeadRows<T> matrix_[kMost];
  int matrices_ = 0;
  const T* state_ = nullptr;
  int64_t part_ = 0;
  int64_t first_ = 0, next_ = 0, count_ = 0, at_once_ = 0;
};

}  // namespace regla::cpu
