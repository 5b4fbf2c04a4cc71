#include "core/heap_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/parallel.h"
#include "core/segment_source.h"

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

/// Bytes per block of what only moves memory: enough that a thread is worth waking.
constexpr int64_t kGrain = int64_t{1} << 20;

template <class T>
void fill_with(void* to, const void* element, size_t count) {
  T value;
  std::memcpy(&value, element, sizeof value);
  auto* out = static_cast<T*>(to);
  parallel_for(static_cast<int64_t>(count), kGrain / static_cast<int64_t>(sizeof(T)),
               [=](int64_t begin, int64_t end) { std::fill(out + begin, out + end, value); });
}

}  // namespace

HeapMemory::HeapMemory(Device device, SegmentSource& source, uintptr_t place)
    : device_(device),
      source_(source),
      small_(source, kSmallSegment),
      large_(source, kLargeSegment, place) {}

BlockHeap& HeapMemory::heap_for(size_t size) { return size < kSmall ? small_ : large_; }

void* HeapMemory::allocate(size_t bytes) {
  const size_t size = rounded(bytes);
  std::lock_guard lock(mutex_);
  void* block = bytes > kMost ? nullptr : heap_for(size).take(size);
  if (block == nullptr) {
    throw MemoryError("[memory] out of memory on " + device_.text() + " asking for " +
                      std::to_string(bytes) + " bytes, with " +
                      std::to_string(stats_.bytes_in_use) + " in use");
  }
  stats_.bytes_requested += static_cast<int64_t>(size);
  stats_.bytes_in_use += static_cast<int64_t>(size);
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  source_.mark_out_of_bounds(static_cast<char*>(block) + bytes, size - bytes);
  return block;
}

void HeapMemory::release(void* block, size_t bytes) noexcept {
  const size_t size = rounded(bytes);
  std::lock_guard lock(mutex_);
  stats_.bytes_in_use -= static_cast<int64_t>(size);
  heap_for(size).give(block, size);
}

MemoryStats HeapMemory::stats() const {
  std::lock_guard lock(mutex_);
  MemoryStats stats = stats_;
  stats.system_calls = small_.segments_taken() + large_.segments_taken();
  stats.system_bytes = small_.bytes_taken() + large_.bytes_taken();
  return stats;
}

void HeapMemory::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak_bytes_in_use = stats_.bytes_in_use;
}

void HeapMemory::trim() {
  std::lock_guard lock(mutex_);
  small_.trim();
  large_.trim();
}

void HeapMemory::count_copy_from_host() {
  std::lock_guard lock(mutex_);
  ++stats_.copies_from_host;
}

void HeapMemory::count_copy_to_host() {
  std::lock_guard lock(mutex_);
  ++stats_.copies_to_host;
}

void HostMemory::copy(void* to, const void* from, size_t bytes) {
  auto* target = static_cast<char*>(to);
  const auto* source = static_cast<const char*>(from);
  parallel_for(static_cast<int64_t>(bytes), kGrain, [=](int64_t begin, int64_t end) {
    std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
  });
}

void HostMemory::copy_from_host(void* to, const void* from, size_t bytes) {
  count_copy_from_host();
  HostMemory::copy(to, from, bytes);
}

void HostMemory::copy_to_host(void* to, const void* from, size_t bytes) {
  count_copy_to_host();
  HostMemory::copy(to, from, bytes);
}

void HostMemory::fill(void* to, const void* element, size_t element_bytes, size_t count) {
  switch (element_bytes) {
    case 1:
      return fill_with<uint8_t>(to, element, count);
    case 2:
      return fill_with<uint16_t>(to, element, count);
    case 4:
      return fill_with<uint32_t>(to, element, count);
    default:
      return fill_with<uint64_t>(to, element, count);
  }
}

}  // namespace regla
