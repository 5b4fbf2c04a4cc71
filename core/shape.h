#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>

namespace regla {

/// The sizes of a tensor's axes, outermost first: at most five, each 64 bits wide.
class Shape {
 public:
  static constexpr int kMaxRank = 5;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  explicit Shape(std::span<const int64_t> sizes);

  int rank() const { return rank_; }
  /// Size of an axis; negative axes count from the end, so `[-1]` is the innermost.
  int64_t operator[](int axis) const;
  /// Number of elements; 1 for rank 0. An Error when it does not fit into 63 bits.
  int64_t numel() const;
  /// The shape with one axis more, or less, at the inner end.
  Shape append(int64_t size) const;
  Shape drop_last() const;
  /// The same with another size of one axis.
  Shape with(int axis, int64_t size) const;

  std::span<const int64_t> sizes() const { return {sizes_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape&) const = default;
  std::string text() const;

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

}  // namespace regla
