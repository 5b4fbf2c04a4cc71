#pragma once

#include <optional>

#include "backends/backend.h"
#include "core/check.h"
#include "tests/catch.h"

namespace regla::test {

/// The first GPU; nothing, and the test case is skipped, where this build or this machine has none.
inline std::optional<Device> gpu() {
  const Device device = Device::named("cuda");
  try {
    open_device(device);
  } catch (const Error& error) {
    skip(error.what());
    return std::nullopt;
  }
  return device;
}

}  // namespace regla::test
