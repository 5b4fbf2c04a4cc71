#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "core/block_heap.h"
#include "core/memory.h"
#include "core/segment_source.h"

namespace regla {

/// Memory whose blocks are cut from segments; what moves bytes is left to the device.
class HeapMemory : public Memory {
 public:
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  MemoryStats stats() const override;
  std::optional<int64_t> available() const override;
  void reset_peak() override;
  void trim() override;
  void enter_routine(int64_t routine) override;
  void leave_routine() noexcept override;
  void end_routine(int64_t routine) noexcept override;

 protected:
  /// `source` must outlive it. Segments of large blocks begin at the address `place` if that is
  /// free.
  HeapMemory(Device device, SegmentSource& source, uintptr_t place = 0);

  /// Before every such copy: an Error inside of a routine.
  void count_copy_from_host();
  void count_copy_to_host();
  /// An Error inside of a routine, where the host may not do that.
  void refuse_in_routine(const char* doing) const;

 private:
  /// Small blocks live long or briefly without an order; apart from the large ones, they leave no
  /// splinters between activations.
  struct Heaps {
    BlockHeap small, large;
    /// Of a routine, where each block is a segment: those that it took or released, and whether
    /// they were released. They stay as long as it does, since it writes to them again.
    std::map<void*, bool> apart;
    Heaps(SegmentSource& source, uintptr_t place);
    BlockHeap& of(size_t size);
    bool contain(const void* block) const;
    void trim();
  };

  void* take_apart(size_t bytes);
  void release_apart(void* block, size_t bytes) noexcept;

  Device device_;
  SegmentSource& source_;
  UnwatchedSegments unwatched_;  // a routine that runs again writes to what it gave back
  mutable std::mutex mutex_;
  Heaps shared_;
  std::map<int64_t, Heaps> routines_;
  Heaps* current_ = &shared_;  // where blocks come from
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
  int64_t set_mark() override { return marks_++; }
  bool has_passed(int64_t) override { return true; }
  void wait_for(int64_t) override {}
  void copy_to_host_beside(void* to, const void* from, size_t bytes) override {
    HostMemory::copy_to_host(to, from, bytes);
  }

 private:
  std::atomic<int64_t> marks_ = 0;
};

}  // namespace regla
