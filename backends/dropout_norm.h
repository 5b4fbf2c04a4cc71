#pragma once

#include "backends/kernels.h"

namespace regla {

/// What KernelTable::dropout_norm and its gradient are: one kernel of the device after the other.
void dropout_norm_by_parts(const DropoutArgs& drop, const NormArgs& norm, const Tensor& y,
                           const Tensor& mean, const Tensor& inverse);
void dropout_norm_backward_by_parts(const DropoutArgs& drop, const NormArgs& norm,
                                    const Tensor& mean, const Tensor& inverse, const Tensor& d_y,
                                    const Sink& d_sum, const Tensor& d_x, const Sink& d_gain,
                                    const Sink& d_bias);

}  // namespace regla
