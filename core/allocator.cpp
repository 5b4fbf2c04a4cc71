#include "core/allocator.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "core/block_heap.h"
#include "core/check.h"

#if defined(__SANITIZE_ADDRESS__) && __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#endif

namespace regla {
namespace {

/// Tells the address sanitizer that only the first `usable` bytes of a block may be touched, which
/// it cannot know of memory that is kept and handed out again.
void mark_usable([[maybe_unused]] void* block, [[maybe_unused]] size_t usable,
                 [[maybe_unused]] size_t size) {
#ifdef ASAN_POISON_MEMORY_REGION
  ASAN_POISON_MEMORY_REGION(block, size);
  ASAN_UNPOISON_MEMORY_REGION(block, usable);
#endif
}

/// Small blocks live long or briefly without an order; apart from the large ones, they leave no
/// splinters between activations.
constexpr size_t kSmall = size_t{64} << 10;
constexpr size_t kSmallSegment = size_t{4} << 20, kLargeSegment = size_t{16} << 20;

size_t rounded(size_t bytes) {
  constexpr size_t step = BlockHeap::kAlignment;
  return std::max(step, (bytes + step - 1) / step * step);
}

/// Far from where programs, libraries and stacks lie. In one piece, the memory that activations
/// leave at the end of a step is the same whole that the step before found.
constexpr uintptr_t kLargePlace = uintptr_t{1} << 45;

class CpuAllocator : public Allocator {
 public:
  void* allocate(size_t bytes) override {
    check(bytes < (size_t{1} << 62), "[allocator] ", bytes, " bytes are too many");
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    void* block = heap_for(size).take(size);
    check(block != nullptr, "[allocator] out of memory asking for ", size, " bytes, with ",
          stats_.bytes_in_use, " in use");
    stats_.bytes_requested += static_cast<int64_t>(size);
    stats_.bytes_in_use += static_cast<int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    mark_usable(block, bytes, size);
    return block;
  }

  void release(void* block, size_t bytes) noexcept override {
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(size);
    mark_usable(block, 0, size);
    heap_for(size).give(block, size);
  }

  AllocatorStats stats() const override {
    std::lock_guard lock(mutex_);
    AllocatorStats stats = stats_;
    stats.system_calls = small_.segments_taken() + large_.segments_taken();
    stats.system_bytes = small_.bytes_taken() + large_.bytes_taken();
    return stats;
  }

  void reset_peak() override {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }

  void trim() override {
    std::lock_guard lock(mutex_);
    small_.trim();
    large_.trim();
  }

 private:
  BlockHeap& heap_for(size_t size) { return size < kSmall ? small_ : large_; }

  mutable std::mutex mutex_;
  BlockHeap small_{kSmallSegment}, large_{kLargeSegment, kLargePlace};
  AllocatorStats stats_;
};

std::vector<std::unique_ptr<Allocator>>& gpu_allocators() {
  static std::vector<std::unique_ptr<Allocator>> list;
  return list;
}

}  // namespace

Allocator& allocator(Device device) {
  // Never destroyed: tensors with static lifetime give their blocks back after main.
  static CpuAllocator& cpu = *new CpuAllocator;
  if (device.is_cpu()) return cpu;
  auto& list = gpu_allocators();
  const auto index = static_cast<size_t>(device.index);
  check(index < list.size() && list[index] != nullptr, "[device] no ", device.text(),
        " here: this build or this machine has none");
  return *list[index];
}

void install_allocator(Device device, std::unique_ptr<Allocator> allocator) {
  check(!device.is_cpu() && device.index >= 0, "[device] cannot replace the allocator of ",
        device.text());
  auto& list = gpu_allocators();
  const auto index = static_cast<size_t>(device.index);
  if (list.size() <= index) list.resize(index + 1);
  list[index] = std::move(allocator);
}

}  // namespace regla
