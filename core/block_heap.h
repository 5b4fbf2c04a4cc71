#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "core/segment_source.h"

namespace regla {

/// Cuts blocks out of segments of memory. A request takes the smallest free block
/// that holds it and leaves the rest; a block that is given back joins the free ones on either
/// side. So what activations leave behind serves gradients, whatever their sizes are.
///
/// Segments are only touched where blocks are used, so a large one costs nothing in advance.
class BlockHeap {
 public:
  static constexpr size_t kAlignment = 64;

  /// New segments, from a `source` that must outlive the heap, have at least `segment` bytes. They
  /// begin at the address `place` if that is free and follow each other there, in one piece as long
  /// as nobody else maps memory between them.
  explicit BlockHeap(SegmentSource& source, size_t segment, uintptr_t place = 0)
      : source_(source), least_segment_(segment), place_(place) {}
  ~BlockHeap() { trim(); }
  BlockHeap(const BlockHeap&) = delete;
  BlockHeap& operator=(const BlockHeap&) = delete;

  /// `size` is a multiple of kAlignment. Null when the source has no more memory.
  void* take(size_t size);
  /// Gives back a block of the size that it was taken with. Nobody may touch it any more, which the
  /// sanitizers and valgrind are told.
  void give(void* block, size_t size);
  /// Returns segments of which nothing is in use to the source.
  void trim();
  /// Takes over the segments of another heap on the same memory: blocks that are in use there are
  /// given back here.
  void absorb(BlockHeap& other);
  /// Whether a block comes from one of its segments.
  bool contains(const void* block) const;

  int64_t segments_taken() const { return segments_taken_; }
  int64_t bytes_taken() const { return bytes_taken_; }

 private:
  void add_free(char* block, size_t size);
  void remove_free(char* block, size_t size);
  bool grow(size_t size);

  SegmentSource& source_;
  size_t least_segment_;
  uintptr_t place_;
  std::map<char*, size_t> segments_;
  std::map<char*, size_t> free_;                // by address, no two adjacent
  std::set<std::pair<size_t, char*>> by_size_;  // the same blocks
  int64_t segments_taken_ = 0, bytes_taken_ = 0;
};

}  // namespace regla
