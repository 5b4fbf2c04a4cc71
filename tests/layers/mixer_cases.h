#pragma once

#include <string>
#include <utility>
#include <vector>

#include "layers/mixer_config.h"

// Mixers by name: every preset and every value of every field.
namespace regla::test {

using Cases = std::vector<std::pair<std::string, MixerConfig>>;

/// At the tests' size: turned, by a base of short wavelengths, low rank of 3.
inline MixerConfig small(MixerType type) {
  MixerConfig c = preset(type);
  c.rope = Rope::Full;
  c.rope_base = 100;
  c.gate_rank = 3;
  return c;
}

template <class Edit>
std::pair<std::string, MixerConfig> with(const std::string& name, MixerType type, Edit&& edit) {
  MixerConfig c = small(type);
  edit(c);
  return {std::string(name_of(type)) + ", " + name, c};
}

inline Cases presets() {
  Cases cases;
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    const auto type = static_cast<MixerType>(i);
    if (type != MixerType::Softmax) cases.emplace_back(name_of(type), small(type));
  }
  return cases;
}

/// ReGLA with each feature map, and each map with a sum norm in front of the stable one.
inline Cases maps() {
  Cases cases;
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    const auto map = static_cast<FeatureMap>(i);
    const std::string name(name_of(map));
    cases.push_back(with(name, MixerType::Regla, [&](MixerConfig& c) { c.feature_map = map; }));
    cases.push_back(with(name + ", both norms", MixerType::Regla, [&](MixerConfig& c) {
      c.feature_map = map;
      c.gate_axis = GateAxis::Key;
      c.sum_norm = true;
      c.norm = MixerNorm::LayerNorm;
    }));
  }
  return cases;
}

inline Cases fields_of_maps() {
  using C = MixerConfig;
  Cases cases;
  const auto add = [&](const std::string& name, MixerType type, auto&& edit) {
    cases.push_back(with(name, type, edit));
  };
  add("joint2x", MixerType::Hedgehog, [](C& c) { c.hedgehog_form = HedgehogForm::Joint2x; });
  add("tied, wide", MixerType::Hedgehog, [](C& c) {
    c.tie_feature_map = true;
    c.feature_dim = 10;
  });
  add("not tied, narrow", MixerType::LinearRelu, [](C& c) {
    c.tie_feature_map = false;
    c.feature_dim = 3;
  });
  for (KeyMax key_max : {KeyMax::Token, KeyMax::Sequence}) {
    add(std::string(name_of(key_max)), MixerType::Performer, [=](C& c) { c.key_max = key_max; });
  }
  add("more features than qk_dim", MixerType::Performer, [](C& c) {
    c.qk_dim = 4;
    c.feature_dim = 9;
  });
  add("wide", MixerType::Rfa, [](C& c) {
    c.qk_dim = 4;
    c.feature_dim = 10;
  });
  add("nu 1", MixerType::LinearElu, [](C& c) {
    c.feature_map = FeatureMap::Dpfp;
    c.dpfp_nu = 1;
  });
  add("nu 2 by feature_dim", MixerType::Regla, [](C& c) {
    c.feature_map = FeatureMap::Dpfp;
    c.dpfp_nu = 2;
    c.feature_dim = 16;
  });
  for (Rope rope : {Rope::None, Rope::Partial}) {
    add("rope " + std::string(name_of(rope)), MixerType::Hedgehog, [=](C& c) {
      c.rope = rope;
      c.qk_dim = 8;
    });
  }
  for (ScoreScale scale : {ScoreScale::Variance, ScoreScale::SqrtD, ScoreScale::None}) {
    add("scale " + std::string(name_of(scale)), MixerType::Performer,
        [=](C& c) { c.score_scale = scale; });
  }
  return cases;
}

inline Cases gates() {
  using C = MixerConfig;
  Cases cases;
  const auto add = [&](const std::string& name, MixerType type, auto&& edit) {
    cases.push_back(with(name, type, edit));
  };
  for (GateAxis axis : {GateAxis::Value, GateAxis::Key, GateAxis::Both}) {
    for (GateProjection projection : {GateProjection::Full, GateProjection::LowRank}) {
      add("axis " + std::string(name_of(axis)) + ", " + std::string(name_of(projection)),
          MixerType::Regla, [=](C& c) {
            c.gate_axis = axis;
            c.gate_projection = projection;
            c.gate_temperature = 4;
            c.feature_dim = 4;
          });
    }
    if (axis == GateAxis::Both) continue;
    add("write gate, " + std::string(name_of(axis)), MixerType::Regla, [=](C& c) {
      c.gate_axis = axis;
      c.write_gate = true;
      c.feature_dim = 4;
    });
  }
  add("per head, write gate", MixerType::Regla, [](C& c) {
    c.gate_projection = GateProjection::PerHead;
    c.write_gate = true;
    c.gate_bias = 1;  // at 0 the bias' gradient cancels to a hundredth of its terms
  });
  add("refined", MixerType::FastDecay, [](C& c) { c.gate = Gate::Refined; });
  add("write gate off", MixerType::ScalarGate, [](C& c) { c.write_gate = false; });
  add("no gate", MixerType::Rfa, [](C& c) {
    c.gate = Gate::None;
    c.write_gate = false;
  });
  add("keys gated and written, sum norm", MixerType::Gla, [](C& c) {
    c.feature_map = FeatureMap::Elu1;
    c.write_gate = true;
    c.sum_norm = true;
  });
  add("output gate", MixerType::Regla, [](C& c) { c.output_gate = OutputGate::Swish; });
  for (MixerNorm norm : {MixerNorm::Rms, MixerNorm::LayerNorm, MixerNorm::None}) {
    add("norm " + std::string(name_of(norm)), MixerType::Gla, [=](C& c) { c.norm = norm; });
    add("norms sum and " + std::string(name_of(norm)), MixerType::LinearElu,
        [=](C& c) { c.norm = norm; });
  }
  return cases;
}

/// DeltaNet with each feature map and each of its other fields.
inline Cases delta_nets() {
  using C = MixerConfig;
  Cases cases;
  const auto add = [&](const std::string& name, auto&& edit) {
    cases.push_back(with(name, MixerType::DeltaNet, edit));
  };
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    const auto map = static_cast<FeatureMap>(i);
    add(std::string(name_of(map)), [=](C& c) {
      c.feature_map = map;
      if (has_key_max(map)) c.key_max = KeyMax::Token;
    });
  }
  for (MixerNorm norm : {MixerNorm::Rms, MixerNorm::LayerNorm}) {
    add("norm " + std::string(name_of(norm)), [=](C& c) {
      c.feature_map = FeatureMap::Elu1;
      c.norm = norm;
    });
  }
  add("output gate", [](C& c) {
    c.feature_map = FeatureMap::Lse;
    c.output_gate = OutputGate::Swish;
  });
  add("gate bias", [](C& c) { c.gate_bias = -3; });
  add("uniform gates", [](C& c) { c.gate_bias_init = GateBiasInit::Uniform; });
  add("scaled, rope none", [](C& c) {
    c.score_scale = ScoreScale::SqrtD;
    c.rope = Rope::None;
    c.dpfp_nu = 1;
  });
  return cases;
}

/// Every mixer by its name, ReGLA with every feature map, and with one gate per head.
inline Cases mixers_and_maps() {
  Cases cases = presets();
  cases.emplace_back(name_of(MixerType::Softmax), small(MixerType::Softmax));
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    const auto map = static_cast<FeatureMap>(i);
    cases.push_back(with(std::string(name_of(map)), MixerType::Regla, [&](MixerConfig& c) {
      c.feature_map = map;
      // As by the names of mixers with these maps: a norm of outputs that are small by chance, as
      // those of favor are, makes more of a rounding the smaller its epsilon is.
      if (map != FeatureMap::SafeExp) c.norm_epsilon = preset(MixerType::Gla).norm_epsilon;
    }));
  }
  cases.push_back(with("gate per head", MixerType::Regla,
                       [](MixerConfig& c) { c.gate_projection = GateProjection::PerHead; }));
  return cases;
}

/// Softmax attention with each of its fields.
inline Cases attentions() {
  Cases cases;
  for (const int64_t window : {0, 1, 8, 20}) {
    cases.push_back(with("window " + std::to_string(window), MixerType::Softmax,
                         [=](MixerConfig& c) { c.window = window; }));
  }
  for (const Rope rope : {Rope::None, Rope::Partial}) {
    cases.push_back(
        with("rope " + std::string(name_of(rope)), MixerType::Softmax, [=](MixerConfig& c) {
          c.feature_dim = 8;
          c.rope = rope;
        }));
  }
  return cases;
}

/// All linear attentions.
inline Cases all_cases() {
  Cases all;
  for (const Cases& part : {presets(), maps(), fields_of_maps(), gates(), delta_nets()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace regla::test
