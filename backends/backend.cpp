#include "backends/backend.h"

#include <chrono>
#include <map>
#include <vector>

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

class HostClock : public Clock {
 public:
  int64_t note() override {
    notes_.push_back(std::chrono::steady_clock::now());
    return static_cast<int64_t>(notes_.size()) - 1;
  }
  double seconds(int64_t from, int64_t to) override {
    return std::chrono::duration<double>(at(to) - at(from)).count();
  }

 private:
  std::chrono::steady_clock::time_point at(int64_t note) const {
    return notes_.at(static_cast<size_t>(note));
  }

  std::vector<std::chrono::steady_clock::time_point> notes_;
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

std::unique_ptr<Clock> make_clock(Device device) {
  const Backend& there = backend(device);
  return there.make_clock ? there.make_clock() : std::make_unique<HostClock>();
}

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
