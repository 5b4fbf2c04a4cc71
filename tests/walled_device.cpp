#include "tests/walled_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "backends/backend.h"
#include "core/check.h"
#include "core/heap_memory.h"
#include "core/kernel_scope.h"
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

/// Of what happens outside of routines and inside.
WallCounts counts[2];
bool is_inside = false;
WallCounts& counts_here() { return counts[is_inside ? 1 : 0]; }

class WalledMemory : public HostMemory {
 public:
  WalledMemory(Device device, ClosedSegments& segments)
      : HostMemory(device, segments), segments_(segments) {}

  void copy(void* to, const void* from, size_t bytes) override {
    ask(&WallCounts::copies, [=, this] { HostMemory::copy(to, from, bytes); });
  }
  void fill(void* to, const void* element, size_t element_bytes, size_t count) override {
    std::array<char, 8> value{};
    std::memcpy(value.data(), element, element_bytes);
    ask(&WallCounts::fills,
        [=, this] { HostMemory::fill(to, value.data(), element_bytes, count); });
  }
  void copy_from_host(void* to, const void* from, size_t bytes) override {
    ++counts_here().copies_from_host;
    const Opened opened(segments_);
    HostMemory::copy_from_host(to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    ++counts_here().copies_to_host;
    const Opened opened(segments_);
    HostMemory::copy_to_host(to, from, bytes);
  }
  void copy_to_host_beside(void* to, const void* from, size_t bytes) override {
    ++counts_here().copies_beside;
    const Opened opened(segments_);
    HostMemory::copy_to_host_beside(to, from, bytes);
  }
  void wait() override { wait_for(newest_); }
  int64_t set_mark() override {
    refuse_in_routine("a mark is set");
    newest_ = HostMemory::set_mark();
    passed_ = std::max(passed_, newest_ - kLate);
    return newest_;
  }
  bool has_passed(int64_t mark) override { return mark <= passed_; }
  void wait_for(int64_t mark) override {
    refuse_in_routine("the host waits");
    passed_ = std::max(passed_, mark);
  }
  void enter_kernel() override {
    if (!KernelScope::is_open()) ++counts_here().kernels;
    segments_.open();
  }
  void leave_kernel() noexcept override { segments_.close(); }

 private:
  struct Opened {
    ClosedSegments& segments;
    explicit Opened(ClosedSegments& which) : segments(which) { segments.open(); }
    ~Opened() { segments.close(); }
  };

  /// Does it, and has it repeated; inside of a kernel it is the kernel's.
  template <class Work>
  void ask(int64_t WallCounts::*counter, Work work) {
    const auto counted = [=, this] {
      if (!KernelScope::is_open()) ++(counts_here().*counter);
      const Opened opened(segments_);
      work();
    };
    counted();
    if (CallRecorder* recorder = CallRecorder::current()) recorder->add(counted);
  }

  static constexpr int64_t kLate = 2;

  ClosedSegments& segments_;
  int64_t newest_ = -1, passed_ = -1;
};

class WalledReplay : public Replay {
 public:
  void run(const std::function<void()>& work) override {
    const Inside inside;
    if (is_recorded_) {
      for (const CallRecorder::Call& call : calls_) call();
      return;
    }
    CallRecorder recorder;
    work();
    calls_ = recorder.take();
    is_recorded_ = true;
  }

 private:
  struct Inside {
    Inside() { is_inside = true; }
    ~Inside() { is_inside = false; }
  };

  std::vector<CallRecorder::Call> calls_;
  bool is_recorded_ = false;
};

}  // namespace

Device walled_device() {
  static const Device device = [] {
    const Device walled = {Device::Kind::Walled, 0};
    auto& segments = *new ClosedSegments;  // outlives every tensor
    install_backend(walled, {.memory = std::make_unique<WalledMemory>(walled, segments),
                             .kernels = &kernels(Device{}),
                             .make_replay = [] { return std::make_unique<WalledReplay>(); }});
    return walled;
  }();
  return device;
}

WallCounts WallCounts::operator-(const WallCounts& before) const {
  return {.kernels = kernels - before.kernels,
          .copies = copies - before.copies,
          .fills = fills - before.fills,
          .copies_from_host = copies_from_host - before.copies_from_host,
          .copies_to_host = copies_to_host - before.copies_to_host,
          .copies_beside = copies_beside - before.copies_beside};
}

WallCounts counts_inside_routines() { return counts[1]; }
WallCounts counts_outside_of_routines() { return counts[0]; }

}  // namespace regla::test
