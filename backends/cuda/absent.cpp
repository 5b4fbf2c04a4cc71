#include "backends/kernels.h"

// Stands in for the CUDA backend in builds without it.
namespace regla::cuda {

const KernelTable& table(Device device);

const KernelTable& table(Device device) {
  fail("[device] ", device.text(), " was asked for, but this build has no CUDA backend");
}

}  // namespace regla::cuda
