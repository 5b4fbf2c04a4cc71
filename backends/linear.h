#pragma once

#include "backends/kernels.h"

namespace regla {

/// The most linear layers of one x whose gradients lie side by side.
constexpr int kMostSideBySide = 16;

/// What KernelTable::linear_backward is: one part after the other, by other kernels of the device.
void linear_backward_by_parts(const LinearGradients& args, const Sink& d_x);

}  // namespace regla
