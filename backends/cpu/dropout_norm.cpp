#include "backends/dropout_norm.h"

#include "backends/cpu/kernels.h"

namespace regla::cpu {

void dropout_norm(const DropoutArgs& drop, const NormArgs& norm, Tensor y, Tensor mean,
                  Tensor inverse) {
  dropout_norm_by_parts(drop, norm, y, mean, inverse);
}

void dropout_norm_backward(const DropoutArgs& drop, const NormArgs& norm, const Tensor& mean,
                           const Tensor& inverse, const Tensor& d_y, Sink d_sum, Tensor d_x,
                           Sink d_gain, Sink d_bias) {
  dropout_norm_backward_by_parts(drop, norm, mean, inverse, d_y, d_sum, d_x, d_gain, d_bias);
}

}  // namespace regla::cpu
