#include <map>
#include <string>
#include <vector>

#include "tests/layers/mixer_cases.h"
#include "tests/layers/mixer_oracle.h"

// Every preset and every value of every field of the linear attention, each against the oracle and
// the contract.
namespace regla::test {
namespace {

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
