#include "layers/feature_maps.h"

#include <cmath>
#include <numbers>

namespace regla {

double score_scale(ScoreScale scale, int64_t K) {
  const auto size = static_cast<double>(K);
  switch (scale) {
    case ScoreScale::Variance: {
      const double e = std::numbers::e;
      return 1 / (e * std::sqrt(size * (e * e - 1)));
    }
    case ScoreScale::SqrtD:
      return 1 / std::sqrt(size);
    default:
      return 1;
  }
}

bool carries_maximum(const MixerConfig& config) {
  return config.feature_map == FeatureMap::SafeExp && config.key_max != KeyMax::Token;
}

namespace {

Maximum maximum_of(KeyMax key_max) {
  switch (key_max) {
    case KeyMax::Running:
      return Maximum::Running;
    case KeyMax::Sequence:
      return Maximum::Sequence;
    default:
      return Maximum::Token;
  }
}

}  // namespace

Features feature_map(const MixerConfig& config, const Var& z_q, const Var& z_k, const Var& m0,
                     const Tensor& reset) {
  const double factor = score_scale(resolved_score_scale(config), z_q.dim(3));
  if (config.feature_map == FeatureMap::Identity) return {scale(z_q, factor), z_k, {}, {}};
  const SafeExp q = safe_exp(z_q, {}, {}, Maximum::Token, factor);            // Eq. 11
  const SafeExp k = safe_exp(z_k, m0, reset, maximum_of(config.key_max), 1);  // Eq. 12
  return {q.features, k.features, k.log_rho, k.m};
}

}  // namespace regla
