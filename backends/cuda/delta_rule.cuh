#pragma once

#include "backends/cuda/block.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/kernels.h"

namespace regla::cuda {

/// Whether the forward pass runs in chunks of 64 tokens on tensor cores: BF16, K and V multiples of
/// 16 up to 128, q, k and v on multiples of 16 bytes. Then `kept` is BF16 [B H, ceil(T / 64), K,
/// V]: the state before each chunk, rounded. All else goes token by token.
bool takes_chunks(const DeltaRuleArgs& args);

/// The forward pass of those.
void delta_rule_chunks(const DeltaRuleArgs& args, RecurrenceResult& result);

/// The backward pass of those, for gradients on multiples of 16 bytes.
void delta_rule_backward_chunks(const DeltaRuleArgs& args, const RecurrenceResult& forward,
                                const DeltaRuleGradients& to);

}  // namespace regla::cuda
