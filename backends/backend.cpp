#include "backends/backend.h"

#include <map>

namespace regla {

namespace cuda {
/// Installs a GPU's backend, or throws an Error that says why there is none.
void install(Device device);
}  // namespace cuda

namespace {

/// The CPU's side of a routine.
class CalledAgain : public Replay {
 public:
  void run(const std::function<void()>& work) override { work(); }
};

/// A backend whose memory is installed where tensors find it (core/memory.h).
std::map<Device, Backend>& installed() {
  static auto& backends = *new std::map<Device, Backend>;
  if (backends.empty()) {
    backends[Device{}] = {nullptr, &cpu::kTable, [] { return std::make_unique<CalledAgain>(); }};
  }
  return backends;
}

const Backend& backend(Device device) {
  const auto found = installed().find(device);
  check(found != installed().end(), "[device] ", device.text(), " was not opened");
  return found->second;
}

}  // namespace

const KernelTable& kernels(Device device) {
  return device.is_cpu() ? cpu::kTable : *backend(device).kernels;
}

std::unique_ptr<Replay> make_replay(Device device) { return backend(device).make_replay(); }

void allow_tf32(Device device, bool allowed) {
  const Backend& there = backend(device);
  if (there.allow_tf32) there.allow_tf32(allowed);
}

const std::string& model_of(Device device) { return backend(device).model; }

void install_backend(Device device, Backend backend) {
  install_memory(device, std::move(backend.memory));
  installed()[device] = std::move(backend);
}

void open_device(Device device) {
  if (installed().contains(device)) return;
  check(device.kind == Device::Kind::Cuda, "[device] ", device.text(), " is not installed");
  cuda::install(device);
}

}  // namespace regla
