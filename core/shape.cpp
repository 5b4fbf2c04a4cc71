#include "core/shape.h"

#include <ostream>

#include "core/check.h"

namespace regla {

Shape::Shape(std::initializer_list<int64_t> sizes)
    : Shape(std::span<const int64_t>(sizes.begin(), sizes.size())) {}

Shape::Shape(std::span<const int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  check(sizes.size() <= kMaxRank, "[shape] expected at most ", kMaxRank, " axes, got ",
        sizes.size());
  for (int axis = 0; axis < rank_; ++axis) {
    check(sizes[axis] >= 0, "[shape] expected sizes of at least 0, got ", sizes[axis]);
    sizes_[axis] = sizes[axis];
  }
}

int64_t Shape::operator[](int axis) const {
  const int index = axis < 0 ? axis + rank_ : axis;
  check(index >= 0 && index < rank_, "[shape] no axis ", axis, " in ", *this);
  return sizes_[index];
}

int64_t Shape::numel() const {
  int64_t product = 1;
  for (int64_t size : sizes()) {
    check(!__builtin_mul_overflow(product, size, &product), "[shape] too many elements in ", *this);
  }
  return product;
}

Shape Shape::append(int64_t size) const {
  check(rank_ < kMaxRank, "[shape] no room for another axis in ", *this);
  Shape longer = *this;
  longer.sizes_[longer.rank_++] = size;
  return longer;
}

Shape Shape::drop_last() const {
  check(rank_ > 0, "[shape] no axis to drop in ", *this);
  Shape shorter = *this;
  shorter.sizes_[--shorter.rank_] = 0;
  return shorter;
}

Shape Shape::with(int axis, int64_t size) const {
  check(size >= 0 && axis >= -rank_ && axis < rank_, "[shape] expected an axis of ", *this,
        " and a size of at least 0, got ", axis, " and ", size);
  Shape other = *this;
  other.sizes_[axis < 0 ? axis + rank_ : axis] = size;
  return other;
}

std::string Shape::text() const {
  std::string text = "[";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(sizes_[axis]);
  }
  return text + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.text(); }

}  // namespace regla
