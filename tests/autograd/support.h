#pragma once

#include <cstdint>

#include "core/memory.h"

namespace regla::test {

/// What tensors hold at the moment.
inline int64_t bytes_in_use() { return memory(Device{}).stats().bytes_in_use; }

}  // namespace regla::test
