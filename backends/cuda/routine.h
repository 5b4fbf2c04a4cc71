#pragma once

#include <memory>

#include "backends/cuda/context.h"
#include "backends/routine.h"

namespace regla::cuda {

/// A GPU's side of a routine: a graph, captured from the stream in the second run. The first one is
/// there to find memory and to choose algorithms.
std::unique_ptr<Replay> make_replay(const Context& context);

}  // namespace regla::cuda
