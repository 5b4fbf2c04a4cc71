#include "backends/kernels.h"

namespace regla {

namespace cuda {
/// The table of the CUDA backend, or an Error that says why there is none.
const KernelTable& table(Device device);
}  // namespace cuda

const KernelTable& kernels(Device device) {
  return device.is_cpu() ? cpu::kTable : cuda::table(device);
}

}  // namespace regla
