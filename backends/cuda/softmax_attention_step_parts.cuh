#pragma once

#include "backends/cuda/softmax_attention.cuh"

namespace regla::cuda {

/// Whether the fast kernels take this step: rows of whole 16 bytes, at most 128 numbers.
bool have_parts(const SoftmaxAttentionStepArgs& args);
/// A step by them.
void attend_by_parts(const SoftmaxAttentionStepArgs& args, const Tensor& o);

}  // namespace regla::cuda
