#pragma once

#include <cstddef>

namespace regla {

/// Where a heap gets its memory from: all that differs between the heaps of two devices.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;

  /// Fresh memory of a device, at `wish` or, where something else is, elsewhere; null when there is
  /// no more.
  virtual char* map(char* wish, size_t bytes) = 0;
  virtual void unmap(char* segment, size_t bytes) noexcept = 0;
  /// Of a block of `size` bytes only the first `usable` may be touched from now on, for tools that
  /// watch this.
  virtual void mark_usable(void* block, size_t usable, size_t size) noexcept = 0;
};

/// Memory of the host, in pages of the larger kind where the system has them.
class HostSegments : public SegmentSource {
 public:
  char* map(char* wish, size_t bytes) override;
  void unmap(char* segment, size_t bytes) noexcept override;
  void mark_usable(void* block, size_t usable, size_t size) noexcept override;
};

}  // namespace regla
