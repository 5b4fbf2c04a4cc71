#pragma once

#include "backends/kernels.h"

namespace regla {

/// What KernelTable::dropout_norm and its gradient are: one kernel of the device after the other.
void dropout_norm_by_parts(const DropoutArgs& drop, const NormArgs& norm,
                           const DropoutNormResult& result);
void dropout_norm_backward_by_parts(const DropoutArgs& drop, const NormArgs& norm,
                                    const DropoutNormResult& forward,
                                    const DropoutNormGradients& gradients);

}  // namespace regla
