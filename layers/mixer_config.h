#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

namespace regla {

// An enumeration that appears in configurations has a `names_of` beside it: the name of each value,
// in order. Reading, writing, error messages and the documentation use nothing else.

/// An enumeration with a table of names.
template <class E>
concept NamedEnum = std::is_enum_v<E> && requires {
  names_of(E{}).size();
};

/// The name of a value as configurations spell it.
template <NamedEnum E>
constexpr std::string_view name_of(E value) {
  return names_of(E{})[static_cast<size_t>(value)];
}

enum class MixerType : uint8_t { Regla, Softmax };
constexpr std::array<std::string_view, 2> names_of(MixerType) { return {"regla", "softmax"}; }

enum class FeatureMap : uint8_t { SafeExp, Identity };
constexpr std::array<std::string_view, 2> names_of(FeatureMap) { return {"safe_exp", "identity"}; }

enum class Rope : uint8_t { Full, Partial, None };
constexpr std::array<std::string_view, 3> names_of(Rope) { return {"full", "partial", "none"}; }

enum class KeyMax : uint8_t { Running, Sequence, Token };
constexpr std::array<std::string_view, 3> names_of(KeyMax) {
  return {"running", "sequence", "token"};
}

enum class ScoreScale : uint8_t { Auto, Variance, SqrtD, None };
constexpr std::array<std::string_view, 4> names_of(ScoreScale) {
  return {"auto", "variance", "sqrt_d", "none"};
}

enum class Gate : uint8_t { Refined, Sigmoid, None };
constexpr std::array<std::string_view, 3> names_of(Gate) { return {"refined", "sigmoid", "none"}; }

enum class GateAxis : uint8_t { Value, Key };
constexpr std::array<std::string_view, 2> names_of(GateAxis) { return {"value", "key"}; }

enum class GateProjection : uint8_t { Full, PerHead, LowRank };
constexpr std::array<std::string_view, 3> names_of(GateProjection) {
  return {"full", "per_head", "low_rank"};
}

enum class GateBiasInit : uint8_t { Constant, Uniform };
constexpr std::array<std::string_view, 2> names_of(GateBiasInit) { return {"constant", "uniform"}; }

enum class MixerNorm : uint8_t { Rms, LayerNorm, None };
constexpr std::array<std::string_view, 3> names_of(MixerNorm) {
  return {"rms", "layernorm", "none"};
}

/// One token mixer. The defaults are ReGLA as in the paper (feature map Eq. 11-12, gate Eq. 15-18).
/// Softmax attention reads type, feature_dim, rope, rotary_pct, rope_base and window only.
struct MixerConfig {
  MixerType type = MixerType::Regla;
  FeatureMap feature_map = FeatureMap::SafeExp;
  int64_t feature_dim = 0;
  Rope rope = Rope::Full;
  double rotary_pct = 0.25;
  double rope_base = 10000;
  KeyMax key_max = KeyMax::Running;
  ScoreScale score_scale = ScoreScale::Auto;
  Gate gate = Gate::Refined;
  GateAxis gate_axis = GateAxis::Value;
  GateProjection gate_projection = GateProjection::Full;
  int64_t gate_rank = 16;
  GateBiasInit gate_bias_init = GateBiasInit::Constant;
  double gate_bias = 0;
  double refine_bias = 0;
  MixerNorm norm = MixerNorm::Rms;
  double norm_epsilon = 1e-8;
  int64_t chunk = 0;
  int64_t window = 0;

  bool operator==(const MixerConfig&) const = default;
};

/// Calls `visit(name, member, meaning)` for every key of a mixer, in the order they are written.
template <class Config, class Visitor>
requires std::same_as<std::remove_const_t<Config>, MixerConfig>
void fields(Config& c, Visitor&& visit) {
  visit("type", c.type, "the mixer");
  visit("feature_map", c.feature_map, "map of queries and keys, per head, after the rotation");
  visit("feature_dim", c.feature_dim, "K, features of a head's queries and keys; 0: hidden/heads");
  visit("rope", c.rope, "rotary positions on all of a head's query and key, on a part, or none");
  visit("rotary_pct", c.rotary_pct, "the part that is rotated with rope = partial, in (0, 1]");
  visit("rope_base", c.rope_base, "base of the rotation's wavelengths");
  visit("key_max", c.key_max,
        "what safe_exp subtracts from keys: the maximum so far, of the whole sequence (sees the "
        "future; for comparison only), or of the token");
  visit("score_scale", c.score_scale,
        "factor on the scores: 1/(e sqrt(K(e^2-1))), 1/sqrt(K) or 1; auto: variance for safe_exp, "
        "sqrt_d for identity and softmax");
  visit("gate", c.gate, "decay of the state: refined gate, plain sigmoid gate, or none");
  visit("gate_axis", c.gate_axis, "the axis of the state that the gate acts on");
  visit("gate_projection", c.gate_projection, "how the gates are computed from the token");
  visit("gate_rank", c.gate_rank, "inner width with gate_projection = low_rank");
  visit("gate_bias_init", c.gate_bias_init,
        "initial gate biases: constants, or uniform gates (forget log(u/(1-u)) with u in "
        "(1/d, 1-1/d), refine minus that; Gu 2020)");
  visit("gate_bias", c.gate_bias, "initial bias of the forget gate with gate_bias_init = constant");
  visit("refine_bias", c.refine_bias,
        "initial bias of the refining gate with gate_bias_init = constant");
  visit("norm", c.norm, "norm of each head's output before the output projection");
  visit("norm_epsilon", c.norm_epsilon, "added to that norm's variance");
  visit("chunk", c.chunk, "tokens per chunk in training; 0: the backend's choice");
  visit("window", c.window,
        "softmax only: a token attends to at most this many last positions; 0: all");
}

/// The scale that `score_scale` stands for: `auto` resolved by type and feature map (MATH.md,
/// section 1). Never Auto.
constexpr ScoreScale resolved_score_scale(const MixerConfig& config) {
  if (config.type == MixerType::Softmax) return ScoreScale::SqrtD;
  if (config.score_scale != ScoreScale::Auto) return config.score_scale;
  return config.feature_map == FeatureMap::SafeExp ? ScoreScale::Variance : ScoreScale::SqrtD;
}

/// How many leading elements of a head's query and key are rotated, of `qk_dim`.
constexpr int64_t rotary_dim(const MixerConfig& config, int64_t qk_dim) {
  switch (config.rope) {
    case Rope::Full:
      return qk_dim;
    case Rope::Partial:
      return static_cast<int64_t>(static_cast<double>(qk_dim) * config.rotary_pct);
    default:
      return 0;
  }
}

}  // namespace regla
