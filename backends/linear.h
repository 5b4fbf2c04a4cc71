#pragma once

#include "backends/kernels.h"

namespace regla {

/// What KernelTable::linear_backward is: one part after the other, by other kernels of the device.
void linear_backward_by_parts(const LinearGradients& args, const Sink& d_x);

}  // namespace regla
