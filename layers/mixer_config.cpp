#include "layers/mixer_config.h"

#include "core/check.h"

namespace regla {
namespace {

/// Linear attention without gates: feature map and norms are what the rows differ in.
MixerConfig plain(MixerType type, FeatureMap map, bool sum_norm) {
  MixerConfig c;
  c.type = type;
  c.feature_map = map;
  c.gate = Gate::None;
  c.sum_norm = sum_norm;
  c.norm = sum_norm ? MixerNorm::None : MixerNorm::Rms;
  c.norm_epsilon = 1e-8;  // no maximum makes what is normalised small
  return c;
}

/// A plain sigmoid gate; axis and projection are what the rows differ in.
MixerConfig gated(MixerConfig c, GateAxis axis, GateProjection projection) {
  c.gate = Gate::Sigmoid;
  c.gate_axis = axis;
  c.gate_projection = projection;
  return c;
}

/// One gate g per head that also writes: S <- g S + (1 - g) k v^T (Eq. 6-7).
MixerConfig scalar_gated(MixerConfig c) {
  c = gated(c, GateAxis::Value, GateProjection::PerHead);
  c.write_gate = true;
  return c;
}

/// GLA (Yang et al. 2024): a = sigma(W2 W1 x + c)^(1/16) on the key axis, swish output gate.
MixerConfig gla() {
  MixerConfig c = gated(plain(MixerType::Gla, FeatureMap::Identity, false), GateAxis::Key,
                        GateProjection::LowRank);
  c.gate_rank = 16;
  c.gate_temperature = 16;
  c.output_gate = OutputGate::Swish;
  return c;
}

}  // namespace

MixerConfig preset(MixerType type) {
  switch (type) {
    case MixerType::LinearElu:  // Katharopoulos et al. 2020
      return plain(type, FeatureMap::Elu1, true);
    case MixerType::LinearRelu: {  // T2R, Kasai et al. 2021: one W and c per head
      MixerConfig c = plain(type, FeatureMap::ReluLearned, false);
      c.tie_feature_map = true;
      return c;
    }
    case MixerType::Performer:  // FAVOR+, Choromanski et al. 2021
      return plain(type, FeatureMap::Favor, true);
    case MixerType::Hedgehog:  // Zhang et al. 2024
      return plain(type, FeatureMap::Hedgehog, false);
    case MixerType::Rfa:  // Peng et al. 2021, with their gate
      return scalar_gated(plain(type, FeatureMap::CosSin, true));
    case MixerType::ScalarGate:  // Table 5
      return scalar_gated(plain(type, FeatureMap::Relu, false));
    case MixerType::FastDecay:  // Mao 2022, Eq. 9-10
      return gated(plain(type, FeatureMap::Identity, false), GateAxis::Both, GateProjection::Full);
    case MixerType::Gla:
      return gla();
    case MixerType::DeltaNet: {  // Schlag et al. 2021: the gate is the write strength
      MixerConfig c =
          gated(plain(type, FeatureMap::Dpfp, false), GateAxis::Value, GateProjection::PerHead);
      c.norm = MixerNorm::None;
      return c;
    }
    case MixerType::Regla:
    case MixerType::Softmax:
      break;
  }
  MixerConfig c;
  c.type = type;
  return c;
}

FeatureSizes feature_sizes(const MixerConfig& c, int64_t head_dim) {
  const auto or_else = [](int64_t given, int64_t otherwise) {
    return given > 0 ? given : otherwise;
  };
  if (c.type != MixerType::Softmax && has_matrix(c.feature_map)) {
    return {or_else(c.qk_dim, head_dim), or_else(c.feature_dim, head_dim)};
  }
  if (c.type != MixerType::Softmax && c.feature_map == FeatureMap::Dpfp) {
    const int64_t per_element = 2 * c.dpfp_nu;
    const int64_t qk_dim = or_else(c.qk_dim, or_else(c.feature_dim / per_element, head_dim));
    return {qk_dim, or_else(c.feature_dim, qk_dim * per_element)};
  }
  const int64_t K = or_else(c.feature_dim, or_else(c.qk_dim, head_dim));
  return {c.type == MixerType::Softmax ? K : or_else(c.qk_dim, K), K};
}

ScoreScale resolved_score_scale(const MixerConfig& c) {
  if (c.type == MixerType::Softmax) return ScoreScale::SqrtD;
  if (c.score_scale != ScoreScale::Auto) return c.score_scale;
  if (c.sum_norm) return ScoreScale::None;  // it divides out
  switch (c.feature_map) {
    case FeatureMap::SafeExp:
      return ScoreScale::Variance;  // Theorem 3.1
    case FeatureMap::Lse:           // features that sum to 1 or 2, or have their own 1/sqrt(K)
    case FeatureMap::Hedgehog:
    case FeatureMap::Dpfp:
    case FeatureMap::Favor:
      return ScoreScale::None;
    default:
      return ScoreScale::SqrtD;
  }
}

namespace {

void check_features(const MixerConfig& c, int64_t head_dim, const std::string& where) {
  const std::string map = std::string(name_of(c.feature_map));
  const bool dpfp = c.feature_map == FeatureMap::Dpfp;
  check(c.dpfp_nu >= 1, "[config] expected ", where, ".dpfp_nu of at least 1, got ", c.dpfp_nu);
  const FeatureSizes n = feature_sizes(c, head_dim);
  const bool doubles = c.feature_map == FeatureMap::Hedgehog || c.feature_map == FeatureMap::CosSin;
  check(!doubles || n.K % 2 == 0, "[config] expected an even ", where, ".feature_dim with ", map,
        ", which makes two features of each projected element, got ", n.K);
  check(!dpfp || n.K == 2 * c.dpfp_nu * n.qk_dim, "[config] expected ", where,
        ".feature_dim = 2 dpfp_nu qk_dim with dpfp, got ", n.K, " with dpfp_nu ", c.dpfp_nu,
        " and qk_dim ", n.qk_dim);
  check(!dpfp || c.dpfp_nu < 2 * n.qk_dim, "[config] expected ", where, ".dpfp_nu below 2 qk_dim (",
        2 * n.qk_dim, "), where rolls begin to repeat, got ", c.dpfp_nu);
  check(dpfp || has_matrix(c.feature_map) || n.K == n.qk_dim, "[config] expected ", where,
        ".feature_dim = qk_dim with ", map, ", which keeps the number of elements, got ", n.K,
        " and ", n.qk_dim);
  check(c.key_max == KeyMax::Running || has_key_max(c.feature_map), "[config] expected ", where,
        ".key_max only with safe_exp or favor: ", map, " subtracts no maximum, got ",
        name_of(c.key_max));
  check(c.redraw_every == 0 || is_random(c.feature_map), "[config] expected ", where,
        ".redraw_every only with favor or cos_sin: ", map, " has no random matrix, got ",
        c.redraw_every);
  check(c.hedgehog_form == HedgehogForm::Separate || c.feature_map == FeatureMap::Hedgehog,
        "[config] expected ", where, ".hedgehog_form only with the feature map hedgehog, got ",
        map);
}

void check_gates(const MixerConfig& c, const std::string& where) {
  check(c.gate_temperature > 0, "[config] expected ", where, ".gate_temperature above 0, got ",
        c.gate_temperature);
  const bool per_head = c.gate_projection == GateProjection::PerHead;
  const bool gates = c.gate != Gate::None;
  check(!gates || !per_head || c.gate_axis != GateAxis::Both, "[config] expected ", where,
        ".gate_axis key or value with gate_projection = per_head: one decay per head acts on the "
        "whole state, a second one would be the same thing twice");
  check(!c.write_gate || gates, "[config] expected a gate with ", where,
        ".write_gate, which multiplies what is written by 1 - gate; set write_gate to false");
  check(!c.write_gate || c.gate_axis != GateAxis::Both, "[config] expected ", where,
        ".gate_axis key or value with write_gate: 1 - a b^T is no product of something of the key "
        "and something of the value");
  const bool scalar_or_key = !gates || per_head || c.gate_axis == GateAxis::Key;
  check(!c.sum_norm || scalar_or_key, "[config] expected ", where,
        ".sum_norm without a gate on the value axis: there every value column decays by itself and "
        "has no common normaliser; set gate_axis to key, gate_projection to per_head, gate to none "
        "or sum_norm to false");
}

/// Eq. 8 decays nothing; its gate is one number per head, the write strength.
void check_delta_net(const MixerConfig& c, const std::string& where) {
  check(c.gate == Gate::Sigmoid && c.gate_projection == GateProjection::PerHead,
        "[config] expected ", where,
        ".gate = sigmoid and gate_projection = per_head with delta_net, whose gate is the strength "
        "of a whole write, in (0, 1), got ",
        name_of(c.gate), " and ", name_of(c.gate_projection));
  check(c.gate_axis == GateAxis::Value, "[config] expected ", where,
        ".gate_axis as it is by default with delta_net: its gate acts on no axis, got ",
        name_of(c.gate_axis));
  check(c.gate_temperature == 1, "[config] expected ", where,
        ".gate_temperature = 1 with delta_net: its gate is no decay, whose log could be divided, "
        "got ",
        c.gate_temperature);
  check(!c.write_gate, "[config] expected ", where,
        ".write_gate = false with delta_net, where the gate is already the strength of the write");
  check(!c.sum_norm, "[config] expected ", where,
        ".sum_norm = false with delta_net: Eq. 8 has no normaliser of that form, since what was "
        "written is partly erased again; its features are normalised instead");
  check(!has_key_max(c.feature_map) || c.key_max == KeyMax::Token, "[config] expected ", where,
        ".key_max = token with delta_net and ", name_of(c.feature_map),
        ": another maximum rescales earlier keys, and the state is not linear in them, got ",
        name_of(c.key_max));
}

}  // namespace

void check_step_form(const MixerConfig& c, const std::string& where) {
  const bool future =
      c.type != MixerType::Softmax && has_key_max(c.feature_map) && c.key_max == KeyMax::Sequence;
  check(!future, "[config] ", where, ".key_max = sequence cannot be decoded token by token: the ",
        "maximum is over later tokens too; train with key_max = running");
}

void check_combination(const MixerConfig& c, int64_t head_dim, const std::string& where) {
  if (c.type == MixerType::Softmax) return;
  check_features(c, head_dim, where);
  check_gates(c, where);
  if (c.type == MixerType::DeltaNet) check_delta_net(c, where);
}

}  // namespace regla
