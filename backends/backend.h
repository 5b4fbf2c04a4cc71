#pragma once

#include <memory>

#include "backends/kernels.h"
#include "core/memory.h"

namespace regla {

/// Adds a device: its memory and its kernels, which must outlive the program's tensors.
void install_backend(Device device, std::unique_ptr<Memory> memory, const KernelTable& kernels);

/// Makes a device ready before the first tensor lies on it. An Error, one line that says what is
/// missing, where this build or this machine has none.
void open_device(Device device);

}  // namespace regla
