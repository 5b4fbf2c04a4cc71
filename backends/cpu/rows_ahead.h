#pragma once

#include <algorithm>
#include <cstdint>

namespace regla::cpu {

/// Brings what the next chunk reads into the second-level cache while this one is worked on. The
/// processor cannot guess it: the rows of a head are short and far apart.
///
/// A few at a time between products, for if all are asked for at once they wait for each other.
template <class T>
class RowsAhead {
 public:
  /// Forgets what was added; `count` rows of each matrix, from row `first` on, will be fetched in
  /// `steps` calls.
  void start(int64_t first, int64_t count, int64_t steps) {
    matrices_ = 0;
    first_ = first;
    next_ = 0;
    count_ = count;
    at_once_ = (count + steps - 1) / steps;
  }

  /// A matrix with rows of `size` elements, `pitch` apart; null: none.
  void add(const T* rows, int64_t pitch, int64_t size) {
    if (rows != nullptr && count_ > 0) matrix_[matrices_++] = {rows + first_ * pitch, pitch, size};
  }

  /// All of `size` elements in one piece, in as many parts as there are rows; null: none.
  void add(const T* data, int64_t size) {
    if (data == nullptr || count_ == 0) return;
    const int64_t part = (size + count_ - 1) / count_;
    matrix_[matrices_++] = {data, part, part};
  }

  void fetch() {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t end = std::min(count_, next_ + at_once_);
    for (int m = 0; m < matrices_; ++m) {
      const auto [rows, pitch, size] = matrix_[m];
      for (int64_t r = next_; r < end; ++r) {
        // Not into the first-level cache, whose 32 KB the products need.
        for (int64_t i = 0; i < size; i += kLine) __builtin_prefetch(rows + r * pitch + i, 0, 2);
      }
    }
    next_ = end;
  }

 private:
  struct Matrix {
    const T* rows;
    int64_t pitch, size;
  };
  static constexpr int kMost = 8;
  Matrix matrix_[kMost];
  int matrices_ = 0;
  int64_t first_ = 0, next_ = 0, count_ = 0, at_once_ = 0;
};

}  // namespace regla::cpu
