#pragma once

#include <memory>

#include "backends/cuda/context.h"
#include "core/memory.h"

namespace regla::cuda {

/// The memory of a GPU, in the order of its stream.
std::unique_ptr<Memory> make_memory(const Context& context);

}  // namespace regla::cuda
