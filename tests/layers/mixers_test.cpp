#include <map>
#include <string>
#include <vector>

#include "tests/layers/mixer_oracle.h"

// Every preset and every value of every field of the linear attention, each against the oracle and
// the contract.
namespace regla::test {
namespace {

using Cases = std::vector<std::pair<std::string, MixerConfig>>;

/// At the tests' size: base of short wavelengths, low rank of 3.
MixerConfig small(MixerType type) {
  MixerConfig c = preset(type);
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

Cases presets() {
  Cases cases;
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    const auto type = static_cast<MixerType>(i);
    if (type != MixerType::Softmax) cases.emplace_back(name_of(type), small(type));
  }
  return cases;
}

/// ReGLA with each feature map, and each map with a sum norm in front of the stable one.
Cases maps() {
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

Cases fields_of_maps() {
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

Cases gates() {
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
Cases delta_nets() {
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

Cases all_cases() {
  Cases all;
  for (const Cases& part : {presets(), maps(), fields_of_maps(), gates(), delta_nets()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

constexpr ContractSizes kOracleSizes = {.B = 2, .T = 23, .past = 5, .hidden = 12, .heads = 2};

}  // namespace

TEST_CASE("every linear attention is the sum that the mathematics says") {
  for (const auto& [name, config] : all_cases()) {
    INFO(name);
    const TestMixer exact(config, kOracleSizes, DType::F64);
    const TestMixer single(config, kOracleSizes, DType::F32);
    const Tensor x = normal_tensor({2, 23, 12}, DType::F64, 1);
    const std::vector<double> expected = MixerOracle(config, exact)(x);
    for (int64_t chunk : {0, 1, 2, 7, 16, 23, 28}) {
      INFO("chunk " << chunk);
      const Var y = exact->chunked(x, {{}, chunk}, nullptr);
      CHECK(relative_error(y.value.values(), expected) < 1e-10);
    }
    const Var y = single->chunked(converted(x, DType::F32), {}, nullptr);
    CHECK(relative_error(y.value.values(), expected) < 1e-4);
  }
}

TEST_CASE("every linear attention by its paper's name keeps the contract") {
  for (const auto& [name, config] : presets()) {
    INFO(name);
    check_mixer_contract(config);
  }
}

TEST_CASE("every feature map keeps the contract") {
  for (const auto& [name, config] : maps()) {
    INFO(name);
    check_mixer_contract(config);
  }
  for (const auto& [name, config] : fields_of_maps()) {
    if (config.key_max == KeyMax::Sequence) continue;  // sees the future
    INFO(name);
    check_mixer_contract(config);
  }
}

TEST_CASE("every gate and norm keeps the contract") {
  for (const auto& [name, config] : gates()) {
    INFO(name);
    check_mixer_contract(config);
  }
}

TEST_CASE("DeltaNet keeps the contract with every feature map") {
  for (const auto& [name, config] : delta_nets()) {
    INFO(name);
    check_mixer_contract(config);
  }
}

TEST_CASE("DeltaNet's preset is Schlag's: DPFP, one strength per head, no norm") {
  const MixerConfig c = preset(MixerType::DeltaNet);
  CHECK(c.feature_map == FeatureMap::Dpfp);
  CHECK(c.dpfp_nu == 3);
  CHECK(c.gate == Gate::Sigmoid);
  CHECK(c.gate_projection == GateProjection::PerHead);
  CHECK(c.norm == MixerNorm::None);
  CHECK(!c.sum_norm);
  CHECK(resolved_score_scale(c) == ScoreScale::None);
  const TestMixer mixer(c, kOracleSizes, DType::F32);
  std::vector<std::string> names;
  for (const Parameter* parameter : mixer.parameters) names.push_back(parameter->name);
  CHECK(names == std::vector<std::string>{
                     "mixer.query.weight", "mixer.query.bias", "mixer.key.weight", "mixer.key.bias",
                     "mixer.value.weight", "mixer.value.bias", "mixer.gate.weight",
                     "mixer.gate.bias", "mixer.output.weight", "mixer.output.bias"});
  // 6 elements of a head make 36 features; what is read, written and read is 2 K V each.
  CHECK(mixer->initial_state(2).S.shape() == Shape{2, 2, 36, 6});
  CHECK(mixer->state_bytes(100, DType::F32) == 4 * 2 * 36 * 6);
  CHECK(mixer->flops_per_token(100) == 6 * 2 * 36 * 6);
}

TEST_CASE("a strength of 1 stores a value under its key, and the last one counts") {
  // The same key twice: Eq. 8 replaces what linear attention would add.
  const Tensor k = Tensor::of({1, 3, 1, 2}, std::vector<double>{1, 0, 0, 1, 1, 0});
  const Tensor v = Tensor::of({1, 3, 1, 1}, std::vector<double>{5, 7, -2});
  const Tensor o = delta_rule(k, k, v, Tensor::full({1, 3, 1}, 1, DType::F64), {}, {}, 0).o.value;
  CHECK(o.values() == std::vector<double>{5, 7, -2});
}

TEST_CASE("whole mixers have the gradients of finite differences, the normaliser's included") {
  // The maps without kinks; those with have theirs checked op by op.
  for (const auto& [name, config] : all_cases()) {
    const bool kinks = config.feature_map == FeatureMap::Relu ||
                       config.feature_map == FeatureMap::ReluLearned ||
                       config.feature_map == FeatureMap::Dpfp ||
                       (config.sum_norm && changes_sign(config.feature_map));
    if (kinks) continue;
    INFO(name);
    const TestMixer mixer(config, kOracleSizes, DType::F64);
    const Carried start = mixer.start();
    Settings s;
    s.x = normal_tensor({2, 7, 12}, DType::F64, 1);
    s.d_y = normal_tensor({2, 7, 12}, DType::F64, 2);
    s.start = &start;
    s.chunk = 3;
    const Named result = run_segments(mixer, s);
    Carried moved = start.clone();
    const auto loss = [&] {
      Carried carried = moved.clone();
      const NoGrad guard;
      double sum = dot(carried.chunked(*mixer, s.x, {{}, 3}).value, s.d_y);
      const MixerState& state = carried.state;
      sum += dot(state.S.value, normal_tensor(state.S.shape(), DType::F64, 31));
      if (!state.m.defined()) return sum;
      return sum + dot(state.m.value, normal_tensor(state.m.shape(), DType::F64, 32));
    };
    const auto check_gradient = [&](Tensor& value, const std::string& which) {
      std::vector<double> numeric, analytic;
      const std::vector<double> all = result.at(which).values();
      for (int64_t i = 0; i < value.numel(); i += 5) {
        numeric.push_back(slope(value, i, loss, 2e-5));  // short: maxima change hands nearby
        analytic.push_back(all[static_cast<size_t>(i)]);
      }
      INFO(which);
      double size = 0;
      for (double v : numeric) size = std::max(size, std::abs(v));
      if (size < 1e-8) return;  // cancels
      CHECK(relative_error(analytic, numeric) < 1e-7);
    };
    check_gradient(s.x, "d x");
    for (Parameter* parameter : mixer.parameters) {
      check_gradient(parameter->value, "d " + parameter->name);
    }
    check_gradient(moved.state.S.value, "d S");
    if (moved.state.m.defined()) check_gradient(moved.state.m.value, "d m");
  }
}

TEST_CASE("decays of one are plain linear attention") {
  MixerConfig config = small(MixerType::FastDecay);
  config.gate_bias = 1e4;
  const TestMixer gated(config, kOracleSizes, DType::F64);
  config.gate = Gate::None;
  const TestMixer plain(config, kOracleSizes, DType::F64);
  for (Parameter* target : plain.parameters) {
    for (const Parameter* source : gated.parameters) {
      if (source->name == target->name) target->value = source->value;
    }
  }
  const Tensor x = normal_tensor({2, 23, 12}, DType::F64, 1);
  CHECK(relative_error(gated->chunked(x, {}, nullptr).value, plain->chunked(x, {}, nullptr).value) <
        1e-12);
}

TEST_CASE("the sum norm's state holds its normaliser") {
  const MixerConfig config = small(MixerType::LinearElu);
  const TestMixer mixer(config, kOracleSizes, DType::F64);
  CHECK(mixer->initial_state(2).S.shape() == Shape{2, 2, 6, 7});
  CHECK(mixer->state_bytes(100, DType::F32) == 4 * 2 * 6 * 7);
}

TEST_CASE("gates that never or always forget are finite with every axis and write gate") {
  for (double bias : {-1e4, -50.0, 50.0, 1e4}) {
    Cases cases = gates();
    for (const auto& one : delta_nets()) cases.push_back(one);
    for (const auto& [name, base] : cases) {
      MixerConfig config = base;
      config.gate_bias = bias;
      INFO(name << ", bias " << bias);
      for (DType dtype : {DType::F64, DType::F32}) {
        const TestMixer mixer(config, kOracleSizes, dtype);
        Settings s;
        s.x = normal_tensor({2, 23, 12}, dtype, 1);
        s.d_y = normal_tensor({2, 23, 12}, dtype, 2);
        for (const auto& [which, value] : run_segments(mixer, s)) {
          INFO(which);
          CHECK((!value.defined() || all_finite(value)));
        }
      }
    }
  }
}

}  // namespace regla::test
