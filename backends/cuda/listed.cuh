#pragma once

#include <cstdint>

#include "backends/cuda/loops.cuh"
#include "core/check.h"

// Kernels over many tensors in one launch. What they need of each travels in the kernel's
// parameters, so that a captured launch has it; each tensor is cut into pieces, a block has one.
namespace regla::cuda {

/// Tensors of one launch: parameters are at most 32,764 bytes.
constexpr int kMostListed = 384;
/// Elements of a block.
constexpr int64_t kPiece = 4096;

template <class Item>
struct Listed {
  int count = 0;
  unsigned first[kMostListed + 1] = {};  // the piece that each tensor begins with, and the end
  Item at[kMostListed];

  unsigned pieces() const { return first[count]; }
  bool is_full() const { return count == kMostListed; }

  void add(const Item& item, int64_t elements) {
    at[count] = item;
    first[count + 1] = first[count] + static_cast<unsigned>((elements + kPiece - 1) / kPiece);
    ++count;
  }

  /// Whose piece that is: the last that begins there or before.
  __device__ int owner(unsigned piece) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first[middle] <= piece ? low : high) = middle;
    }
    return low;
  }
};

/// Calls `launch(list, begin)` with items [begin, begin + list.count), until it had all of `count`.
/// Item i has `elements_of(i)`, and `item_of(i)` is what a kernel needs of it.
template <class Item, class ItemOf, class ElementsOf, class Launch>
void for_lists(size_t count, ItemOf&& item_of, ElementsOf&& elements_of, Launch&& launch) {
  static_assert(sizeof(Listed<Item>) <= 32'000, "parameters of a kernel");
  for (size_t begin = 0; begin < count; begin += kMostListed) {
    Listed<Item> list;
    for (size_t i = begin; i < count && !list.is_full(); ++i) list.add(item_of(i), elements_of(i));
    launch(list, begin);
  }
}

}  // namespace regla::cuda
