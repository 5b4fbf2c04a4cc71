#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/check.h"
#include "core/device.h"

namespace regla {

/// The system has no more memory. The input may be fine.
class MemoryError : public Error {
  using Error::Error;
};

/// What an allocator has done so far. `bytes_requested` only grows; after the first training step
/// `system_calls` and `system_bytes` stay where they are, since every block then comes from memory
/// that was used before.
struct AllocatorStats {
  int64_t bytes_in_use = 0;
  int64_t peak_bytes_in_use = 0;
  int64_t bytes_requested = 0;
  int64_t system_calls = 0;
  int64_t system_bytes = 0;  ///< taken from the system, whether given back since or not
};

/// A caching allocator: what tensors give back is kept and handed out again. One per device;
/// thread-safe. Blocks are aligned to 64 bytes.
class Allocator {
 public:
  virtual ~Allocator() = default;
  /// A MemoryError when there is no more.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* block, size_t bytes) noexcept = 0;
  virtual AllocatorStats stats() const = 0;
  /// Lets `peak_bytes_in_use` begin again at what is in use now.
  virtual void reset_peak() = 0;
  /// Returns to the system what is free in one piece as it came.
  virtual void trim() = 0;
};

/// The allocator of a device; an Error where this build has none for it.
Allocator& allocator(Device device);

/// Adds a device's allocator (a GPU backend does so when it starts).
void install_allocator(Device device, std::unique_ptr<Allocator> allocator);

}  // namespace regla
