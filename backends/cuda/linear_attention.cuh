#pragma once

#include "backends/cuda/block.cuh"
#include "backends/kernels.h"

namespace regla::cuda {

/// Whether both passes run in chunks of 64 tokens on tensor cores: BF16, K and V multiples of 16 up
/// to 128, all tensors on multiples of 16 bytes. Then `kept` is BF16 [B H, ceil(T / 64), K, V]: the
/// state before each chunk, rounded. All else goes token by token.
bool takes_chunks(const LinearAttentionArgs& args);

/// The forward pass of those.
void linear_attention_chunks(const LinearAttentionArgs& args, RecurrenceResult& result);

}  // namespace regla::cuda
