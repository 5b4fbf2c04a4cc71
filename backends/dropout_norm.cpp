#include "backends/dropout_norm.h"

namespace regla {

void dropout_norm_by_parts(const DropoutArgs& drop, const NormArgs& norm,
                           const DropoutNormResult& result) {
  const KernelTable& kernel = kernels(norm.x.device());
  if (drop.rate > 0) {
    kernel.dropout(drop, Sink{norm.x});
  } else {
    kernel.add(drop.residual, drop.x, norm.x);
  }
  kernel.norm(norm, result.y, result.mean, result.inverse);
}

void dropout_norm_backward_by_parts(const DropoutArgs& drop, const NormArgs& norm,
                                    const DropoutNormResult& forward,
                                    const DropoutNormGradients& gradients) {
  const auto& [d_y, d_sum, d_x, d_gain, d_bias] = gradients;
  const KernelTable& kernel = kernels(d_y.device());
  kernel.norm_backward(norm, forward.mean, forward.inverse, d_y, d_sum, d_gain, d_bias);
  if (!d_x) return;
  if (drop.rate > 0) {
    DropoutArgs same_mask = drop;
    same_mask.x = d_sum.tensor;
    kernel.dropout(same_mask, Sink{d_x});
  } else {
    kernel.convert(d_sum.tensor, d_x);
  }
}

}  // namespace regla
