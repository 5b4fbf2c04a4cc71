#include "core/memory.h"

#include <map>

#include "core/check.h"
#include "core/heap_memory.h"
#include "core/segment_source.h"

namespace regla {
namespace {

/// Far from where programs, libraries and stacks lie. In one piece, the memory that activations
/// leave at the end of a step is the same whole that the step before found.
constexpr uintptr_t kLargePlace = uintptr_t{1} << 45;

using Memories = std::map<Device, std::unique_ptr<Memory>>;

// None of these is ever destroyed: tensors with static lifetime give their blocks back after main.
Memory& cpu_memory() {
  static HostSegments& segments = *new HostSegments;
  static Memory& cpu = *new HostMemory(Device{}, segments, kLargePlace);
  return cpu;
}

Memories& installed() {
  static Memories& memories = *new Memories;
  return memories;
}

}  // namespace

Memory& memory(Device device) {
  if (device.is_cpu()) return cpu_memory();
  const auto found = installed().find(device);
  check(found != installed().end(), "[device] no ", device.text(),
        " here: this build or this machine has none");
  return *found->second;
}

void install_memory(Device device, std::unique_ptr<Memory> memory) {
  check(!device.is_cpu(), "[device] cannot replace the memory of ", device.text());
  installed()[device] = std::move(memory);
}

}  // namespace regla
