#include "core/heap_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/parallel.h"

namespace regla {
namespace {

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

HeapMemory::Heaps::Heaps(SegmentSource& source, uintptr_t place)
    : small(source, kSmallSegment), large(source, kLargeSegment, place) {}

BlockHeap& HeapMemory::Heaps::of(size_t size) { return size < kSmall ? small : large; }

bool HeapMemory::Heaps::contain(const void* block) const {
  return small.contains(block) || large.contains(block);
}

void HeapMemory::Heaps::trim() {
  small.trim();
  large.trim();
}

HeapMemory::HeapMemory(Device device, SegmentSource& source, uintptr_t place)
    : device_(device), source_(source), unwatched_(source), shared_(source, place) {}

void* HeapMemory::allocate(size_t bytes) {
  const size_t size = rounded(bytes);
  std::lock_guard lock(mutex_);
  void* block = bytes > kMost               ? nullptr
                : source_.maps_each_block() ? take_apart(bytes)
                                            : current_->of(size).take(size);
  if (block == nullptr) {
    const std::optional<int64_t> left = available();
    throw MemoryError("[memory] out of memory on " + device_.text() + " asking for " +
                      std::to_string(bytes) + " bytes, with " +
                      std::to_string(stats_.bytes_in_use) + " in use" +
                      (left ? " and " + std::to_string(*left) + " left" : ""));
  }
  stats_.bytes_requested += static_cast<int64_t>(size);
  stats_.bytes_in_use += static_cast<int64_t>(size);
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  if (current_ == &shared_) {
    source_.mark_out_of_bounds(static_cast<char*>(block) + bytes, size - bytes);
  }
  return block;
}

void HeapMemory::release(void* block, size_t bytes) noexcept {
  const size_t size = rounded(bytes);
  std::lock_guard lock(mutex_);
  stats_.bytes_in_use -= static_cast<int64_t>(size);
  if (source_.maps_each_block()) return release_apart(block, bytes);
  Heaps* owner = &shared_;
  for (auto& [routine, heaps] : routines_) {
    if (heaps.contain(block)) owner = &heaps;
  }
  owner->of(size).give(block, size);
}

void* HeapMemory::take_apart(size_t bytes) {
  void* block = source_.map(nullptr, std::max<size_t>(bytes, 1));
  if (block != nullptr && current_ != &shared_) current_->apart[block] = false;
  return block;
}

void HeapMemory::release_apart(void* block, size_t bytes) noexcept {
  for (auto& [routine, heaps] : routines_) {
    const auto found = heaps.apart.find(block);
    if (found == heaps.apart.end()) continue;
    found->second = true;
    return;
  }
  if (current_ != &shared_) {  // while it records nobody may wait, which unmapping does
    current_->apart[block] = true;
  } else {
    source_.unmap(static_cast<char*>(block), bytes);
  }
}

MemoryStats HeapMemory::stats() const {
  std::lock_guard lock(mutex_);
  MemoryStats stats = stats_;
  const auto add = [&](const Heaps& heaps) {
    for (const BlockHeap* heap : {&heaps.small, &heaps.large}) {
      stats.system_calls += heap->segments_taken();
      stats.system_bytes += heap->bytes_taken();
    }
  };
  add(shared_);
  for (const auto& [routine, heaps] : routines_) add(heaps);
  return stats;
}

std::optional<int64_t> HeapMemory::available() const {
  const std::optional<size_t> bytes = source_.available();
  return bytes ? std::optional(static_cast<int64_t>(*bytes)) : std::nullopt;
}

void HeapMemory::reset_peak() {
  std::lock_guard lock(mutex_);
  stats_.peak_bytes_in_use = stats_.bytes_in_use;
}

void HeapMemory::trim() {
  refuse_in_routine("memory is returned to the system");  // the device would have to be waited for
  std::lock_guard lock(mutex_);
  shared_.trim();  // what a routine has free is written to when it runs again
}

void HeapMemory::enter_routine(int64_t routine) {
  std::lock_guard lock(mutex_);
  check(current_ == &shared_, "[routine] a routine of ", device_.text(), " runs inside of another");
  const auto [place, is_new] = routines_.try_emplace(routine, unwatched_, uintptr_t{0});
  current_ = &place->second;
}

void HeapMemory::leave_routine() noexcept {
  std::lock_guard lock(mutex_);
  current_ = &shared_;
}

void HeapMemory::end_routine(int64_t routine) noexcept {
  std::lock_guard lock(mutex_);
  const auto found = routines_.find(routine);
  if (found == routines_.end()) return;
  Heaps& ended = found->second;
  if (current_ == &shared_) ended.trim();  // else another one records, which may not wait
  for (const auto& [block, is_released] : ended.apart) {
    if (is_released) source_.unmap(static_cast<char*>(block), 0);
  }
  shared_.small.absorb(ended.small);
  shared_.large.absorb(ended.large);
  routines_.erase(found);
}

void HeapMemory::refuse_in_routine(const char* doing) const {
  std::lock_guard lock(mutex_);
  check(current_ == &shared_, "[routine] ", doing, " inside of a routine of ", device_.text(),
        ", which cannot be repeated");
}

void HeapMemory::count_copy_from_host() {
  refuse_in_routine("bytes are copied from the host");
  std::lock_guard lock(mutex_);
  ++stats_.copies_from_host;
}

void HeapMemory::count_copy_to_host() {
  refuse_in_routine("bytes are copied to the host");
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
