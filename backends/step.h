#pragma once

#include "backends/kernels.h"

// Kernels of a decoding step that are compositions, by the other kernels of the device.
namespace regla {

/// What KernelTable::linear_step is.
void linear_step_by_parts(const LinearStepArgs& args);
/// The same step on what its norm gives.
LinearStepArgs normed(const LinearStepArgs& args);
/// What KernelTable::regla_step is.
void regla_step_by_parts(const ReglaStepArgs& args, const Tensor& y);

/// The same step with a query and a key that have turned.
SoftmaxAttentionStepArgs turned(const SoftmaxAttentionStepArgs& args);

}  // namespace regla
