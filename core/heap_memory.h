#pragma once

#include <mutex>

#include "core/block_heap.h"
#include "core/memory.h"

namespace regla {

/// Memory whose blocks are cut from segments; what moves bytes is left to the device.
class HeapMemory : public Memory {
 public:
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  MemoryStats stats() const override;
  void reset_peak() override;
  void trim() override;

 protected:
  /// `source` must outlive it. Segments of large blocks begin at the address `place` if that is
  /// free.
  HeapMemory(Device device, SegmentSource& source, uintptr_t place);

  void count_copy_from_host();
  void count_copy_to_host();

 private:
  BlockHeap& heap_for(size_t size);

  Device device_;
  SegmentSource& source_;
  mutable std::mutex mutex_;
  BlockHeap small_, large_;
  MemoryStats stats_;
};

/// Memory that the host can reach: bytes are copied by its threads.
class HostMemory : public HeapMemory {
 public:
  explicit HostMemory(Device device, SegmentSource& source, uintptr_t place = 0)
      : HeapMemory(device, source, place) {}

  void copy(void* to, const void* from, size_t bytes) override;
  void copy_from_host(void* to, const void* from, size_t bytes) override;
  void copy_to_host(void* to, const void* from, size_t bytes) override;
  void fill(void* to, const void* element, size_t element_bytes, size_t count) override;
  void wait() override {}
};

}  // namespace regla
