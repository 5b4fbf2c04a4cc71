#include "core/block_heap.h"

#include <algorithm>
#include <iterator>

namespace regla {
namespace {

/// Segments begin and end with a page of the larger kind.
constexpr size_t kSegmentStep = size_t{2} << 20;

}  // namespace

void* BlockHeap::take(size_t size) {
  auto found = by_size_.lower_bound({size, nullptr});
  if (found == by_size_.end()) {
    if (!grow(size)) return nullptr;
    found = by_size_.lower_bound({size, nullptr});
  }
  const auto [whole, block] = *found;
  remove_free(block, whole);
  if (whole > size) add_free(block + size, whole - size);
  source_.mark_unwritten(block, size);
  return block;
}

void BlockHeap::give(void* address, size_t size) {
  auto* block = static_cast<char*>(address);
  source_.mark_out_of_bounds(block, size);
  const auto after = free_.lower_bound(block);
  char* end = block + size;
  if (after != free_.end() && after->first == end) {
    end += after->second;
    remove_free(after->first, after->second);
  }
  const auto next = free_.lower_bound(block);
  if (next != free_.begin()) {
    const auto [before, length] = *std::prev(next);
    if (before + length == block) {
      remove_free(before, length);
      block = before;
    }
  }
  add_free(block, static_cast<size_t>(end - block));
}

void BlockHeap::trim() {
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    const auto [base, size] = *segment;
    const auto after = free_.upper_bound(base);
    const auto found = after == free_.begin() ? free_.end() : std::prev(after);
    if (found == free_.end() || found->first + found->second < base + size) {
      ++segment;
      continue;
    }
    const auto [block, length] = *found;
    remove_free(block, length);
    const auto before = static_cast<size_t>(base - block), rest = length - before - size;
    if (before > 0) add_free(block, before);
    if (rest > 0) add_free(base + size, rest);
    source_.mark_unwritten(base, size);  // the addresses may come back as something else
    source_.unmap(base, size);
    segment = segments_.erase(segment);
  }
}

void BlockHeap::absorb(BlockHeap& other) {
  segments_.merge(other.segments_);
  for (const auto& [block, size] : other.free_) give(block, size);
  other.free_.clear();
  other.by_size_.clear();
  segments_taken_ += std::exchange(other.segments_taken_, 0);
  bytes_taken_ += std::exchange(other.bytes_taken_, 0);
}

bool BlockHeap::contains(const void* block) const {
  const auto* address = static_cast<const char*>(block);
  const auto after = segments_.upper_bound(const_cast<char*>(address));
  if (after == segments_.begin()) return false;
  const auto& [base, size] = *std::prev(after);
  return address < base + size;
}

void BlockHeap::add_free(char* block, size_t size) {
  free_.emplace(block, size);
  by_size_.emplace(size, block);
}

void BlockHeap::remove_free(char* block, size_t size) {
  free_.erase(block);
  by_size_.erase({size, block});
}

bool BlockHeap::grow(size_t size) {
  const auto in_steps = [&](size_t least) {
    return (std::max(least, least_segment_) + kSegmentStep - 1) / kSegmentStep * kSegmentStep;
  };
  char* wish = segments_.empty() ? reinterpret_cast<char*>(place_)
                                 : segments_.rbegin()->first + segments_.rbegin()->second;
  // What is free at the end of the last segment goes on in the new one.
  const size_t tail = free_.empty() || free_.rbegin()->first + free_.rbegin()->second != wish
                          ? 0
                          : free_.rbegin()->second;
  size_t bytes = in_steps(size - tail);
  char* base = source_.map(wish, bytes);
  if (base != nullptr && base != wish && bytes < size) {  // it does not follow
    source_.unmap(base, bytes);
    bytes = in_steps(size);
    base = source_.map(nullptr, bytes);
  }
  if (base == nullptr) return false;
  segments_.emplace(base, bytes);
  ++segments_taken_;
  bytes_taken_ += static_cast<int64_t>(bytes);
  give(base, bytes);
  return true;
}

}  // namespace regla
