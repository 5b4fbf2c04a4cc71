#include "backends/dropout_norm.h"

#include "backends/cpu/kernels.h"

namespace regla::cpu {

void dropout_norm(const DropoutArgs& drop, const NormArgs& norm, DropoutNormResult& result) {
  dropout_norm_by_parts(drop, norm, result);
}

void dropout_norm_backward(const DropoutArgs& drop, const NormArgs& norm,
                           const DropoutNormResult& forward,
                           const DropoutNormGradients& gradients) {
  dropout_norm_backward_by_parts(drop, norm, forward, gradients);
}

}  // namespace regla::cpu
