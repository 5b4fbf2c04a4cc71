#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "backends/cuda/context.h"

namespace regla::cuda {

/// Points in the work of a stream, so many at a time.
class Marks {
 public:
  static constexpr int64_t kCount = 16;

  explicit Marks(cudaStream_t stream);

  /// Waits for the mark `kCount` ago.
  int64_t set();
  bool has_passed(int64_t mark) const;
  void wait_for(int64_t mark) const;

 private:
  cudaEvent_t event(int64_t mark) const { return events_[static_cast<size_t>(mark % kCount)]; }

  cudaStream_t stream_;
  std::array<cudaEvent_t, kCount> events_{};
  int64_t next_ = 0;
};

/// Memory of the host that a GPU copies from by itself, so that the host need not wait until it has
/// come there.
class Staging {
 public:
  /// What is larger is not staged.
  static constexpr size_t kLargest = size_t{8} << 20;

  explicit Staging(cudaStream_t stream) : stream_(stream), marks_(stream) {}

  /// Takes bytes and has them copied in the order of the stream.
  void copy(void* to, const void* from, size_t bytes);

 private:
  struct Slot {
    void* memory = nullptr;
    size_t bytes = 0;
  };

  cudaStream_t stream_;
  Marks marks_;  // behind the copy from each slot
  std::array<Slot, Marks::kCount> slots_;
  int64_t copies_ = 0;
};

}  // namespace regla::cuda
