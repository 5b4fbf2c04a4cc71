#pragma once

#include <functional>
#include <memory>

#include "backends/kernels.h"
#include "backends/routine.h"
#include "core/memory.h"

namespace regla {

/// The three things that a device consists of.
struct Backend {
  std::unique_ptr<Memory> memory;
  const KernelTable* kernels;
  /// Makes the device's side of a new routine.
  std::function<std::unique_ptr<Replay>()> make_replay;
};

/// Adds a device, which must outlive the program's tensors.
void install_backend(Device device, Backend backend);

/// Makes a device ready before the first tensor lies on it. An Error, one line that says what is
/// missing, where this build or this machine has none.
void open_device(Device device);

}  // namespace regla
