#include "backends/kernels.h"

#include <map>

#include "backends/backend.h"

namespace regla {

namespace cuda {
/// Installs a GPU's backend, or throws an Error that says why there is none.
void install(Device device);
}  // namespace cuda

namespace {

std::map<Device, const KernelTable*>& installed() {
  static auto& tables = *new std::map<Device, const KernelTable*>{{Device{}, &cpu::kTable}};
  return tables;
}

}  // namespace

const KernelTable& kernels(Device device) {
  if (device.is_cpu()) return cpu::kTable;
  const auto found = installed().find(device);
  check(found != installed().end(), "[device] ", device.text(), " was not opened");
  return *found->second;
}

void install_backend(Device device, std::unique_ptr<Memory> memory, const KernelTable& kernels) {
  install_memory(device, std::move(memory));
  installed()[device] = &kernels;
}

void open_device(Device device) {
  if (installed().contains(device)) return;
  check(device.kind == Device::Kind::Cuda, "[device] ", device.text(), " is not installed");
  cuda::install(device);
}

}  // namespace regla
