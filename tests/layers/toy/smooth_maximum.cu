#include "backends/cuda/cells.cuh"
#include "tests/layers/toy/smooth_maximum.h"

namespace regla::test {

// 2 of "A new mixer" in CONTRIBUTING.md: the kernels of GPUs.
[[maybe_unused]] static const bool is_on_gpus = cuda::add_cell<recurrence::SmoothMaximum>();

}  // namespace regla::test
