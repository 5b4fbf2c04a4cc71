#include "tests/walled_device.h"

#include <sys/mman.h>

#include <map>
#include <memory>
#include <mutex>

#include "backends/backend.h"
#include "core/check.h"
#include "core/heap_memory.h"
#include "core/segment_source.h"

namespace regla::test {
namespace {

/// The host's segments, closed while nobody has opened them.
class ClosedSegments : public HostSegments {
 public:
  char* map(char* wish, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    char* segment = HostSegments::map(wish, bytes);
    if (segment == nullptr) return nullptr;
    segments_[segment] = bytes;
    protect(segment, bytes);
    return segment;
  }

  void unmap(char* segment, size_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    segments_.erase(segment);
    HostSegments::unmap(segment, bytes);
  }

  void open() { move(+1); }
  void close() { move(-1); }

 private:
  void move(int by) {
    const std::lock_guard lock(mutex_);
    const bool was_open = open_ > 0;
    open_ += by;
    if (was_open == (open_ > 0)) return;
    for (const auto& [segment, bytes] : segments_) protect(segment, bytes);
  }

  void protect(char* segment, size_t bytes) {
    const int access = open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
    check(::mprotect(segment, bytes, access) == 0, "[walled] mprotect failed");
  }

  std::mutex mutex_;
  std::map<char*, size_t> segments_;
  int open_ = 0;
};

class WalledMemory : public HostMemory {
 public:
  WalledMemory(Device device, ClosedSegments& segments)
      : HostMemory(device, segments), segments_(segments) {}

  void copy(void* to, const void* from, size_t bytes) override {
    const Opened opened(segments_);
    HostMemory::copy(to, from, bytes);
  }
  void copy_from_host(void* to, const void* from, size_t bytes) override {
    const Opened opened(segments_);
    HostMemory::copy_from_host(to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    const Opened opened(segments_);
    HostMemory::copy_to_host(to, from, bytes);
  }
  void fill(void* to, const void* element, size_t element_bytes, size_t count) override {
    const Opened opened(segments_);
    HostMemory::fill(to, element, element_bytes, count);
  }
  void enter_kernel() override { segments_.open(); }
  void leave_kernel() noexcept override { segments_.close(); }

 private:
  struct Opened {
    ClosedSegments& segments;
    explicit Opened(ClosedSegments& which) : segments(which) { segments.open(); }
    ~Opened() { segments.close(); }
  };

  ClosedSegments& segments_;
};

}  // namespace

Device walled_device() {
  static const Device device = [] {
    const Device walled = {Device::Kind::Walled, 0};
    auto& segments = *new ClosedSegments;  // outlives every tensor
    install_backend(walled, std::make_unique<WalledMemory>(walled, segments), kernels(Device{}));
    return walled;
  }();
  return device;
}

}  // namespace regla::test
