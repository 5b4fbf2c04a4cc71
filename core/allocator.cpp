#include "core/allocator.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "core/block_heap.h"
#include "core/memory_checks.h"

namespace regla {
namespace {

/// Small blocks live long or briefly without an order; apart from the large ones, they leave no
/// splinters between activations.
constexpr size_t kSmall = size_t{64} << 10;
constexpr size_t kSmallSegment = size_t{4} << 20, kLargeSegment = size_t{16} << 20;

constexpr size_t kMost = size_t{1} << 62;  // more than any machine has, and rounding is safe

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
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    void* block = bytes > kMost ? nullptr : heap_for(size).take(size);
    if (block == nullptr) {
      throw MemoryError("[allocator] out of memory asking for " + std::to_string(bytes) +
                        " bytes, with " + std::to_string(stats_.bytes_in_use) + " in use");
    }
    stats_.bytes_requested += static_cast<int64_t>(size);
    stats_.bytes_in_use += static_cast<int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    mark_out_of_bounds(static_cast<char*>(block) + bytes, size - bytes);
    return block;
  }

  void release(void* block, size_t bytes) noexcept override {
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(size);
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
