#pragma once

#include "core/device.h"

namespace regla::test {

/// A device whose kernels are the CPU's and whose memory may be touched by kernels and by Memory
/// alone. Whoever asks for the address of one of its tensors elsewhere gets an Error that names the
/// place; an address that was kept from before lies in closed pages and faults. Installed by the
/// first call.
Device walled_device();

}  // namespace regla::test
