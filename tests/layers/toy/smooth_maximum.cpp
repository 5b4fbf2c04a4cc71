#include "tests/layers/toy/smooth_maximum.h"

#include "backends/cpu/cells.h"

namespace regla::test {

// 2 of "A new mixer" in CONTRIBUTING.md: the kernels of the CPU.
[[maybe_unused]] static const bool is_on_cpu = cpu::add_cell<recurrence::SmoothMaximum>();

}  // namespace regla::test
