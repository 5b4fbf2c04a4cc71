#pragma once

#include <cstdint>
#include <memory>

#include "core/device.h"

namespace regla {

/// Times the work of a device without making it wait.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Notes the time when the device comes past all that it was asked for so far, or inside of a
  /// routine (backends/routine.h), past what the routine asked for so far, whenever it runs. Notes
  /// are numbered from 0.
  virtual int64_t note() = 0;
  /// Seconds from one note to a later one, as the device last came past them; waits for it.
  virtual double seconds(int64_t from, int64_t to) = 0;
};

/// A clock of a device that was opened.
std::unique_ptr<Clock> make_clock(Device device);

}  // namespace regla
