#include "core/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

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

constexpr size_t kAlignment = 64;

/// Sizes are rounded up to four steps per power of two, so that a block serves its neighbours.
size_t rounded(size_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  const size_t step = std::max(kAlignment, std::bit_floor(bytes - 1) / 4);
  return (bytes + step - 1) / step * step;
}

class CpuAllocator : public Allocator {
 public:
  ~CpuAllocator() override { trim(); }

  void* allocate(size_t bytes) override {
    check(bytes < (size_t{1} << 62), "[allocator] ", bytes, " bytes are too many");
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_requested += static_cast<int64_t>(size);
    stats_.bytes_in_use += static_cast<int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    auto& cached = free_[size];
    if (!cached.empty()) {
      void* block = cached.back();
      cached.pop_back();
      mark_usable(block, bytes, size);
      return block;
    }
    ++stats_.system_calls;
    stats_.system_bytes += static_cast<int64_t>(size);
    void* block = std::aligned_alloc(kAlignment, size);
    if (block == nullptr) {
      stats_.bytes_in_use -= static_cast<int64_t>(size);
      fail("[allocator] out of memory asking for ", size, " bytes, with ", stats_.bytes_in_use,
           " in use");
    }
    mark_usable(block, bytes, size);
    return block;
  }

  void release(void* block, size_t bytes) noexcept override {
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(size);
    mark_usable(block, 0, size);
    free_[size].push_back(block);
  }

  AllocatorStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void trim() override {
    std::lock_guard lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) {
        mark_usable(block, size, size);
        std::free(block);
      }
      blocks.clear();
    }
  }

 private:
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
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
