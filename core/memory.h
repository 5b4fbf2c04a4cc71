#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "core/check.h"
#include "core/device.h"

namespace regla {

/// A device or the system has no more memory. The input may be fine.
class MemoryError : public Error {
  using Error::Error;
};

/// What a device's memory has done so far. The counters only grow; after the first training step
/// `system_calls` and `system_bytes` stay where they are, since every block then comes from memory
/// that was used before.
struct MemoryStats {
  int64_t bytes_in_use = 0;
  int64_t peak_bytes_in_use = 0;
  int64_t bytes_requested = 0;
  int64_t system_calls = 0;
  int64_t system_bytes = 0;      ///< taken from the system, whether given back since or not
  int64_t copies_from_host = 0;  ///< calls of copy_from_host
  int64_t copies_to_host = 0;    ///< calls of copy_to_host and copy_to_host_beside
};

/// The memory of a device: bytes, no arithmetic. What tensors give back is kept and handed out
/// again. Blocks are aligned to 64 bytes. Copies and fills take their turn behind the kernels that
/// the device was asked for before. Thread-safe.
class Memory {
 public:
  virtual ~Memory() = default;

  /// A MemoryError when there is no more.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* block, size_t bytes) noexcept = 0;
  virtual MemoryStats stats() const = 0;
  /// Bytes that the device has beside what was taken from it so far, where it says so.
  virtual std::optional<int64_t> available() const = 0;
  /// Lets `peak_bytes_in_use` begin again at what is in use now.
  virtual void reset_peak() = 0;
  /// Returns to the system what is free in one piece as it came.
  virtual void trim() = 0;

  /// Copies within the device.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// `from` may change as soon as this returns.
  virtual void copy_from_host(void* to, const void* from, size_t bytes) = 0;
  /// Waits until the bytes are there.
  virtual void copy_to_host(void* to, const void* from, size_t bytes) = 0;
  /// `count` times the element of 1, 2, 4 or 8 bytes at `element`.
  virtual void fill(void* to, const void* element, size_t element_bytes, size_t count) = 0;
  /// Returns when the device has done all that it was asked for.
  virtual void wait() = 0;

  /// A point behind all that the device was asked for so far. Marks are numbered as they are set.
  virtual int64_t set_mark() = 0;
  /// Whether the device has come past a mark; does not wait.
  virtual bool has_passed(int64_t mark) = 0;
  virtual void wait_for(int64_t mark) = 0;
  /// Copies what was written before a mark that has passed and not since, beside what the device
  /// still does.
  virtual void copy_to_host_beside(void* to, const void* from, size_t bytes) = 0;

  /// Until `leave_routine`, blocks come from a heap that this routine (backends/routine.h) alone
  /// has: whenever it runs again it writes where it wrote before. Blocks from before go back where
  /// they came from. Meanwhile copies to and from the host are an Error, since they would not be
  /// repeated. One routine at a time.
  virtual void enter_routine(int64_t routine) = 0;
  virtual void leave_routine() noexcept = 0;
  /// The routine will not run again: its heap becomes part of the one that all share.
  virtual void end_routine(int64_t routine) noexcept = 0;

  /// Around every kernel of the device, on the thread that calls it.
  virtual void enter_kernel() {}
  virtual void leave_kernel() noexcept {}
};

/// The memory of a device; an Error where none is installed for it.
Memory& memory(Device device);

/// Adds a device's memory (a backend does so when it starts) or replaces one without blocks in use.
void install_memory(Device device, std::unique_ptr<Memory> memory);

}  // namespace regla
