#pragma once

#include "autograd/ops.h"
#include "layers/mixer_config.h"

namespace regla {

/// Queries and keys after the feature map phi, and what the map itself does to the state.
struct Features {
  Var q, k;     // [B, T, H, K]; q carries the score scale
  Var log_rho;  // [B, T, H]: decay by the running maximum of the keys, or undefined
  Var m;        // [B, H]: that maximum after the segment, or undefined
};

/// The factor on the scores q k for K features (Theorem 3.1: variance = 1 / (e sqrt(K (e^2 - 1)))).
double score_scale(ScoreScale scale, int64_t K);

/// Applies the configured map to z_q, z_k [B, T, H, K]. m0 [B, H]: the maximum of earlier keys, or
/// undefined; reset [B, T] I32 or undefined.
Features feature_map(const MixerConfig& config, const Var& z_q, const Var& z_k, const Var& m0,
                     const Tensor& reset);

/// Whether the map keeps a running maximum in the state.
bool carries_maximum(const MixerConfig& config);

}  // namespace regla
