#pragma once

#include <memory>

#include "backends/clock.h"
#include "backends/cuda/context.h"

namespace regla::cuda {

std::unique_ptr<Clock> make_clock(const Context& context);

}  // namespace regla::cuda
