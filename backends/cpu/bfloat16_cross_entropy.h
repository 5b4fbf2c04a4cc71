#pragma once

#include "backends/cpu/bfloat16_gemm.h"
#include "backends/kernels.h"

namespace regla::cpu {

/// `cross_entropy` where hidden states and weights are in BF16.
void bfloat16_cross_entropy(const CrossEntropyArgs& args, Tensor losses, Tensor d_hidden,
                            Tensor d_weight, BFloat16Way way = bfloat16_way());

}  // namespace regla::cpu
