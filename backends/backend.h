#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backends/clock.h"
#include "backends/kernels.h"
#include "backends/routine.h"
#include "core/memory.h"

namespace regla {

/// What a device consists of.
struct Backend {
  std::unique_ptr<Memory> memory;
  const KernelTable* kernels;
  /// Makes the device's side of a new routine.
  std::function<std::unique_ptr<Replay>()> make_replay;
  std::function<void(bool)> allow_tf32 = {};  // see below; empty: products are always exact
  std::string model = {};                     // what its maker calls it
  /// Makes a clock; empty: the host's time will do, since all is done when it was asked for.
  std::function<std::unique_ptr<Clock>()> make_clock = {};
};

/// Adds a device, which must outlive the program's tensors.
void install_backend(Device device, Backend backend);

/// Makes a device ready before the first tensor lies on it. An Error, one line that says what is
/// missing, where this build or this machine has none.
void open_device(Device device);

/// What the maker of an open device calls it.
const std::string& model_of(Device device);

/// Whether products of an open device may from now on round operands in F32 to 10 bits of mantissa
/// (TF32), where it has units for that. A routine keeps what it was recorded with.
void allow_tf32(Device device, bool allowed);

}  // namespace regla
