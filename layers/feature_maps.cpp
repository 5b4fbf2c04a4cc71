#include "layers/feature_maps.h"

#include <cmath>
#include <numbers>

#include "backends/copies.h"
#include "layers/random_features.h"

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
  return has_key_max(config.feature_map) && config.key_max != KeyMax::Token;
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

UnitLength::UnitLength(const ParameterFactory& make, int64_t heads, int64_t size)
    : gain_(Tensor::full({heads, size}, 1 / std::sqrt(static_cast<double>(size)), make.sums(),
                         make.device())),
      dtype_(make.dtype()) {}

Var UnitLength::operator()(const Var& x) const {
  constexpr double kEpsilon = 1e-12;  // under the root of the mean square
  return head_norm(x, gain_, kEpsilon, false, dtype_);
}

HeadLinear::HeadLinear(const ParameterFactory& make, const std::string& name, int64_t heads,
                       int64_t in, int64_t out, bool with_bias)
    : weight(make.normal(name + ".weight", {heads * out, in}, Role::HeadMatrix,
                         1 / std::sqrt(static_cast<double>(in)))) {
  if (with_bias) bias = make.constant(name + ".bias", {heads * out}, Role::Bias, 0);
}

void HeadLinear::parameters(ParameterList& list) {
  list.push_back(&weight);
  if (bias) list.push_back(&*bias);
}

Phi::Phi(const MixerConfig& config, const MixerSizes& sizes, const ParameterFactory& make,
         const std::string& name)
    : config_(config),
      dtype_(make.dtype()),
      device_(make.device()),
      name_(name),
      heads_(sizes.heads),
      qk_dim_(feature_sizes(config, sizes.hidden / sizes.heads).qk_dim),
      K_(feature_sizes(config, sizes.hidden / sizes.heads).K) {
  const bool relu = config.feature_map == FeatureMap::ReluLearned;
  if (relu || config.feature_map == FeatureMap::Hedgehog) {
    const auto matrix = [&](const char* which) {
      return HeadLinear(make, name + which, heads_, qk_dim_, relu ? K_ : K_ / 2, relu);
    };
    query_ = matrix(config.tie_feature_map ? ".feature" : ".feature_query");
    if (!config.tie_feature_map) key_ = matrix(".feature_key");
  }
  if (is_random(config.feature_map)) draw(0);
  if (config.feature_map == FeatureMap::CosSin) {
    unit_.emplace(make, heads_, qk_dim_);
  }
}

Features Phi::operator()(const Var& z_q, const Var& z_k, const Rotation& rotation, const Var& m0,
                         const Tensor& reset) {
  const double factor = score_scale(resolved_score_scale(config_), K_);
  if (config_.feature_map == FeatureMap::SafeExp) {
    return stabilised(z_q, z_k, rotation, m0, reset, factor, 1);
  }
  const Var x_q = rope(z_q, rotation), x_k = rope(z_k, rotation);
  if (config_.feature_map == FeatureMap::Favor) return favor(x_q, x_k, m0, reset, factor);
  const Var q = mapped(x_q, query_), k = mapped(x_k, key_ ? key_ : query_);
  return {factor == 1 ? q : scale(q, factor), k, {}, {}};
}

Features Phi::stabilised(const Var& z_q, const Var& z_k, const Rotation& rotation, const Var& m0,
                         const Tensor& reset, double q_scale, double k_scale) {
  const SafeExp q = safe_exp(z_q, {}, {}, Maximum::Token, q_scale, dtype_, rotation);  // Eq. 11
  const SafeExp k = safe_exp(z_k, m0, reset, maximum_of(config_.key_max), k_scale, dtype_,
                             rotation);  // Eq. 12
  return {q.features, k.features, k.log_rho, k.m};
}

/// exp(x)exp(y) = E[exp(w x - |x|^2/2) exp(w y - |y|^2/2)] over normal w, with x' = x qk_dim^(-1/4)
/// for the scores of softmax attention. A query's |x'|^2/2 leaves with its maximum.
Features Phi::favor(const Var& x_q, const Var& x_k, const Var& m0, const Tensor& reset,
                    double factor) {
  const double root = std::pow(static_cast<double>(qk_dim_), -0.25);
  const double share = 1 / std::sqrt(static_cast<double>(K_));
  const Var q = scale(x_q, root, dtype_), k = scale(x_k, root, dtype_);
  const auto exponents = [&](const Var& x) {
    return head_linear(x, random_, {}, sum_type(dtype_));
  };
  return stabilised(exponents(q), favor_exponent(exponents(k), k), {}, m0, reset, factor * share,
                    share);
}

Var Phi::mapped(const Var& x, std::optional<HeadLinear>& learned) {
  switch (config_.feature_map) {
    case FeatureMap::Lse:
      return softmax(x, dtype_);
    case FeatureMap::Relu:
      return relu(x);
    case FeatureMap::ReluLearned:
      return relu((*learned)(x));
    case FeatureMap::Elu1:
      return elu_plus_one(x);
    case FeatureMap::Hedgehog:
      return hedgehog((*learned)(x, sum_type(dtype_)),
                      config_.hedgehog_form == HedgehogForm::Joint2x, dtype_);
    case FeatureMap::CosSin:
      return cos_sin(head_linear((*unit_)(x), random_, {}, sum_type(dtype_)), dtype_);
    case FeatureMap::Dpfp:
      return dpfp(x, config_.dpfp_nu);
    default:
      return x;
  }
}

void Phi::parameters(ParameterList& list) {
  if (query_) query_->parameters(list);
  if (key_) key_->parameters(list);
}

void Phi::begin_step(int64_t updates_done) {
  if (config_.redraw_every == 0 || !is_random(config_.feature_map)) return;
  draw(updates_done / config_.redraw_every);
}

void Phi::draw(int64_t number) {
  if (number == drawn_) return;
  const bool favor = config_.feature_map == FeatureMap::Favor;
  const Random random = random_numbers(static_cast<uint64_t>(config_.feature_seed),
                                       name_ + ".random." + std::to_string(number));
  const Tensor drawn = random_directions(random, heads_, favor ? K_ : K_ / 2, qk_dim_, favor);
  if (!random_) random_ = Tensor::empty(drawn.shape(), dtype_, device_);
  random_.copy_from(converted(drawn, dtype_));  // in place: what is recorded reads it there
  drawn_ = number;
}

double Phi::flops_per_token() const {
  const double once = random_ ? static_cast<double>(random_.numel())
                              : (query_ ? static_cast<double>(query_->weight.value.numel()) : 0.0);
  if (random_) return 2 * 2 * once;
  return config_.tie_feature_map ? 2 * once : 0;
}

}  // namespace regla
