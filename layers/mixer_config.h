#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/named_enum.h"

namespace regla {

/// Mixers by the names of the paper's tables. All but softmax and delta_net are the same linear
/// attention under other settings: `preset` gives the fields that a name stands for.
enum class MixerType : uint8_t {
  Regla,
  Softmax,
  LinearElu,
  LinearRelu,
  Performer,
  Hedgehog,
  Rfa,
  ScalarGate,
  FastDecay,
  Gla,
  DeltaNet
};
constexpr std::array<std::string_view, 11> names_of(MixerType) {
  return {"regla", "softmax",     "linear_elu", "linear_relu", "performer", "hedgehog",
          "rfa",   "scalar_gate", "fast_decay", "gla",         "delta_net"};
}

enum class FeatureMap : uint8_t {
  SafeExp,
  Identity,
  Lse,
  Relu,
  ReluLearned,
  Elu1,
  Favor,
  Hedgehog,
  CosSin,
  Dpfp
};
constexpr std::array<std::string_view, 10> names_of(FeatureMap) {
  return {"safe_exp", "identity", "lse",      "relu",    "relu_learned",
          "elu1",     "favor",    "hedgehog", "cos_sin", "dpfp"};
}

enum class HedgehogForm : uint8_t { Separate, Joint2x };
constexpr std::array<std::string_view, 2> names_of(HedgehogForm) { return {"separate", "joint2x"}; }

enum class Rope : uint8_t { Auto, Full, Partial, None };
constexpr std::array<std::string_view, 4> names_of(Rope) {
  return {"auto", "full", "partial", "none"};
}

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

enum class GateAxis : uint8_t { Value, Key, Both };
constexpr std::array<std::string_view, 3> names_of(GateAxis) { return {"value", "key", "both"}; }

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

enum class OutputGate : uint8_t { None, Swish };
constexpr std::array<std::string_view, 2> names_of(OutputGate) { return {"none", "swish"}; }

/// One token mixer. The defaults are ReGLA as in the paper (feature map Eq. 11-12, gate Eq. 15-18).
/// `type` alone changes none of them: start from `preset(type)`, as reading a configuration does.
/// Softmax attention reads type, feature_dim, rope, rotary_pct, rope_base and window only.
struct MixerConfig {
  MixerType type = MixerType::Regla;
  FeatureMap feature_map = FeatureMap::SafeExp;
  int64_t feature_dim = 0;
  int64_t qk_dim = 0;
  bool tie_feature_map = false;
  HedgehogForm hedgehog_form = HedgehogForm::Separate;
  int64_t dpfp_nu = 3;
  int64_t feature_seed = 0;
  int64_t redraw_every = 0;
  Rope rope = Rope::Auto;
  double rotary_pct = 0.25;
  double rope_base = 10000;
  KeyMax key_max = KeyMax::Running;
  ScoreScale score_scale = ScoreScale::Auto;
  Gate gate = Gate::Refined;
  GateAxis gate_axis = GateAxis::Value;
  GateProjection gate_projection = GateProjection::Full;
  int64_t gate_rank = 16;
  double gate_temperature = 1;
  bool write_gate = false;
  GateBiasInit gate_bias_init = GateBiasInit::Constant;
  double gate_bias = 0;
  double refine_bias = 0;
  bool sum_norm = false;
  MixerNorm norm = MixerNorm::Rms;
  double norm_epsilon = 1e-30;
  OutputGate output_gate = OutputGate::None;
  int64_t chunk = 0;
  int64_t window = 0;

  bool operator==(const MixerConfig&) const = default;
};

/// Calls `visit(name, member, meaning)` for every key of a mixer, in the order they are written.
template <class Config, class Visitor>
requires std::same_as<std::remove_const_t<Config>, MixerConfig>
void fields(Config& c, Visitor&& visit) {
  visit("type", c.type,
        "the mixer by its paper's name: sets the defaults of the keys below, which are those of "
        "regla in this table; any of them may be given beside it");
  visit("feature_map", c.feature_map,
        "phi, map of queries and keys, per head, after the rotation: exp minus its maximum, none, "
        "softmax (exp minus log-sum-exp), relu, relu of a learned W x + c, elu + 1, positive "
        "orthogonal random features, HedgeHog, random Fourier features, or DPFP");
  visit("feature_dim", c.feature_dim,
        "K, features of a head's queries and keys after phi; 0: hidden/heads, with dpfp 2 nu "
        "qk_dim");
  visit("qk_dim", c.qk_dim,
        "elements of a head's query and key before phi; 0: feature_dim, with dpfp feature_dim/(2 "
        "nu), or hidden/heads where phi has a matrix (relu_learned, favor, hedgehog, cos_sin)");
  visit("tie_feature_map", c.tie_feature_map,
        "relu_learned and hedgehog: queries and keys share the learned matrix");
  visit("hedgehog_form", c.hedgehog_form,
        "[softmax(Wx), softmax(-Wx)], or one softmax([2Wx, -2Wx])");
  visit("dpfp_nu", c.dpfp_nu, "dpfp: how many rolls are multiplied");
  visit(
      "feature_seed", c.feature_seed,
      "favor and cos_sin: seed of the random matrix, which no checkpoint holds: configuration and "
      "weights alone make the model");
  visit("redraw_every", c.redraw_every,
        "favor and cos_sin: updates between draws of the random matrix; 0: never drawn again");
  visit("rope", c.rope,
        "rotary positions on all of a head's query and key, on a part, or none; auto: all where "
        "scores then depend on distances, in softmax attention and with the map identity, else "
        "none");
  visit("rotary_pct", c.rotary_pct, "the part that is rotated with rope = partial, in (0, 1]");
  visit("rope_base", c.rope_base, "base of the rotation's wavelengths");
  visit("key_max", c.key_max,
        "what safe_exp and favor subtract from keys: the maximum so far, of the whole sequence "
        "(sees the future; for comparison only), or of the token");
  visit("score_scale", c.score_scale,
        "factor on the scores: 1/(e sqrt(K(e^2-1))), 1/sqrt(K) or 1; auto: none with a sum norm "
        "and for lse, favor, hedgehog and dpfp, variance for safe_exp, sqrt_d otherwise");
  visit("gate", c.gate,
        "decay of the state: refined gate, plain sigmoid gate, or none; delta_net: the sigmoid is "
        "the "
        "write strength");
  visit("gate_axis", c.gate_axis,
        "the axis of the state that the gate acts on; both: a gate for each (Fast Decay)");
  visit("gate_projection", c.gate_projection, "how the gates are computed from the token");
  visit("gate_rank", c.gate_rank, "inner width with gate_projection = low_rank");
  visit("gate_temperature", c.gate_temperature, "log-decays are divided by it (GLA: 16)");
  visit("write_gate", c.write_gate, "what is written is multiplied by 1 - gate (RFA)");
  visit("gate_bias_init", c.gate_bias_init,
        "initial gate biases: constants, or uniform gates (forget log(u/(1-u)) with u in "
        "(1/d, 1-1/d), refine minus that; Gu 2020)");
  visit("gate_bias", c.gate_bias, "initial bias of the forget gate with gate_bias_init = constant");
  visit("refine_bias", c.refine_bias,
        "initial bias of the refining gate with gate_bias_init = constant");
  visit("sum_norm", c.sum_norm,
        "divide each head's output by the same sum over written ones; not with a gate on the value "
        "axis");
  visit("norm", c.norm, "norm of each head's output before the output projection");
  visit("norm_epsilon", c.norm_epsilon,
        "added to that norm's variance; 1e-8 by the names of all other mixers");
  visit("output_gate", c.output_gate,
        "the output is multiplied by swish of a projection of the token (GLA), or not");
  visit("chunk", c.chunk, "tokens per chunk in training; 0: the backend's choice");
  visit("window", c.window,
        "softmax only: a token attends to at most this many last positions; 0: all");
}

/// The fields that a mixer's name stands for (docs/math.md, "The other linear attentions").
MixerConfig preset(MixerType type);

/// Sizes of a head's query and key.
struct FeatureSizes {
  int64_t qk_dim;  // before phi, where the rotation acts
  int64_t K;       // after phi
};
/// Those sizes with zeros resolved, for heads of `head_dim` values.
FeatureSizes feature_sizes(const MixerConfig& config, int64_t head_dim);

/// An Error unless a token's output depends on no later token, so that it can be computed when the
/// token comes: the form `step` of a mixer. `where` goes before the name of the field.
void check_step_form(const MixerConfig& config, const std::string& where);

/// An Error that says why unless the fields go together. `where` goes before their names.
void check_combination(const MixerConfig& config, int64_t head_dim, const std::string& where);

/// The scale that `score_scale` stands for: `auto` resolved. Never Auto.
ScoreScale resolved_score_scale(const MixerConfig& config);

/// Whether the map begins with a matrix per head, learned or random.
constexpr bool has_matrix(FeatureMap map) {
  return map == FeatureMap::ReluLearned || map == FeatureMap::Hedgehog ||
         map == FeatureMap::Favor || map == FeatureMap::CosSin;
}

/// Whether that matrix is random.
constexpr bool is_random(FeatureMap map) {
  return map == FeatureMap::Favor || map == FeatureMap::CosSin;
}

/// Whether features, and so scores, may be negative.
constexpr bool changes_sign(FeatureMap map) {
  return map == FeatureMap::Identity || map == FeatureMap::CosSin;
}

/// Whether a token's features sum to 1 or 2 whatever the token is.
constexpr bool sums_to_constant(FeatureMap map) {
  return map == FeatureMap::Lse || map == FeatureMap::Hedgehog || map == FeatureMap::Dpfp;
}

/// Whether a maximum is subtracted from the keys.
constexpr bool has_key_max(FeatureMap map) {
  return map == FeatureMap::SafeExp || map == FeatureMap::Favor;
}

/// Whether queries and keys stay unrounded before the feature map: an exponential or a turn makes
/// more of a rounding the larger they are.
constexpr bool takes_exact(const MixerConfig& config) {
  return config.type != MixerType::Softmax &&
         (config.feature_map == FeatureMap::SafeExp || config.feature_map == FeatureMap::Lse ||
          config.feature_map == FeatureMap::Favor || config.feature_map == FeatureMap::CosSin);
}

/// Whether features, gate and what is written are those of ReGLA as the paper has it.
constexpr bool is_paper_form(const MixerConfig& config) {
  return config.feature_map == FeatureMap::SafeExp && config.key_max == KeyMax::Running &&
         config.gate == Gate::Refined && config.gate_axis == GateAxis::Value &&
         config.gate_projection == GateProjection::Full && config.gate_temperature == 1 &&
         !config.write_gate && !config.sum_norm;
}

/// The rotation that `rope` stands for: `auto` resolved. Never Auto. Scores of turned queries and
/// keys depend on distances where they are products of them, but not behind a map that is not
/// linear (docs/math.md, "Positions").
constexpr Rope resolved_rope(const MixerConfig& config) {
  if (config.rope != Rope::Auto) return config.rope;
  const bool by_distance =
      config.type == MixerType::Softmax || config.feature_map == FeatureMap::Identity;
  return by_distance ? Rope::Full : Rope::None;
}

/// How many leading elements of a head's query and key are rotated, of `qk_dim`.
constexpr int64_t rotary_dim(const MixerConfig& config, int64_t qk_dim) {
  switch (resolved_rope(config)) {
    case Rope::Full:
      return qk_dim;
    case Rope::Partial:
      return static_cast<int64_t>(static_cast<double>(qk_dim) * config.rotary_pct);
    default:
      return 0;
  }
}

}  // namespace regla
