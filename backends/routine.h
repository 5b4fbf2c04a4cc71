#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "core/device.h"

namespace regla {

/// A device's side of one routine.
class Replay {
 public:
  virtual ~Replay() = default;
  /// Does the work once: by calling it or, once that was recorded, without.
  virtual void run(const std::function<void()>& work) = 0;
};

/// The same work again on the same memory. The CPU calls it every time. Other devices record what
/// it asks of them, and from then on do that again without running any of its code on the host: a
/// number that it computes there stays what it was.
///
/// So what differs between runs must lie in tensors, written between them. Memory that the work
/// allocates is the routine's own until the routine is gone, since every run writes there: tensors
/// that outlive a run hold what the last one left in them. Memory from before must live as long as
/// the routine.
///
/// Copies between host and device, waiting for the device, and another routine are an Error inside
/// of the work. On the CPU, where tensors are read in place, only the last can be noticed. After
/// an Error the next run calls the work again. One thread at a time.
class Routine {
 public:
  Routine(Device device, std::function<void()> work);
  ~Routine();
  Routine(const Routine&) = delete;
  Routine& operator=(const Routine&) = delete;

  /// Asks the device for the work once more.
  void run();

 private:
  void call() const;

  Device device_;
  std::function<void()> work_;
  int64_t number_;  // that memory knows it by
  std::unique_ptr<Replay> replay_;
};

/// A device's side of a new routine; an Error where the device was not opened.
std::unique_ptr<Replay> make_replay(Device device);

}  // namespace regla
