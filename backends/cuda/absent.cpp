#include "core/check.h"
#include "core/device.h"

// Stands in for the CUDA backend in builds without it.
namespace regla::cuda {

void install(Device device);

void install(Device device) {
  fail("[device] ", device.text(), " was asked for, but this build has no CUDA backend");
}

}  // namespace regla::cuda
