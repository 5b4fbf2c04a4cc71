#include "tests/layers/mixer_contract.h"

namespace regla::test {
namespace {

MixerConfig regla() {
  MixerConfig config;
  config.rope = Rope::Full;
  config.rope_base = 100;
  return config;
}

MixerConfig softmax(int64_t window) {
  MixerConfig config;
  config.type = MixerType::Softmax;
  config.window = window;
  return config;
}

}  // namespace

TEST_CASE("softmax attention keeps the contract") { check_mixer_contract(softmax(0)); }

TEST_CASE("softmax attention with a window keeps the contract") {
  for (int64_t window : {1, 2, 8, 20, 200}) {
    INFO("window " << window);
    check_mixer_contract(softmax(window));
  }
}

TEST_CASE("the contract holds at lengths around the chunks'") {
  for (MixerType type : {MixerType::Softmax, MixerType::Regla, MixerType::LinearElu, MixerType::Gla,
                         MixerType::DeltaNet}) {
    for (int64_t T : {1, 15, 64, 65, 200}) {
      INFO(name_of(type) << ", T " << T);
      MixerConfig config = preset(type);
      config.rope = Rope::Full;
      // The query of a lone token only scales its value. A norm takes that out again, and leaves
      // of the query's gradient a difference that float cannot resolve.
      if (T == 1) config.norm = MixerNorm::None;
      check_mixer_contract(config, false, {.T = T});
    }
  }
}

TEST_CASE("softmax attention's fields keep the contract") {
  MixerConfig config = softmax(0);
  config.feature_dim = 4;
  config.rope = Rope::None;
  check_mixer_contract(config);
  config.feature_dim = 8;
  config.rope = Rope::Partial;
  check_mixer_contract(config);
}

TEST_CASE("ReGLA keeps the contract") { check_mixer_contract(regla()); }

TEST_CASE("ReGLA's gates keep the contract") {
  for (GateAxis axis : {GateAxis::Value, GateAxis::Key}) {
    for (Gate gate : {Gate::Refined, Gate::Sigmoid, Gate::None}) {
      for (GateProjection projection :
           {GateProjection::Full, GateProjection::PerHead, GateProjection::LowRank}) {
        MixerConfig config = regla();
        config.feature_dim = 4;
        config.gate_axis = axis;
        config.gate = gate;
        config.gate_projection = projection;
        config.gate_rank = 3;
        if (gate == Gate::None && projection != GateProjection::Full) continue;
        INFO(name_of(axis) << ", " << name_of(gate) << ", " << name_of(projection));
        check_mixer_contract(config);
      }
    }
  }
}

TEST_CASE("ReGLA's feature maps, scales and maxima keep the contract") {
  for (ScoreScale scale :
       {ScoreScale::Auto, ScoreScale::Variance, ScoreScale::SqrtD, ScoreScale::None}) {
    for (FeatureMap map : {FeatureMap::SafeExp, FeatureMap::Identity}) {
      MixerConfig config = regla();
      config.feature_map = map;
      config.score_scale = scale;
      config.feature_dim = 8;
      INFO(name_of(map) << ", " << name_of(scale));
      check_mixer_contract(config);
    }
  }
  MixerConfig config = regla();
  config.key_max = KeyMax::Token;
  check_mixer_contract(config);
}

TEST_CASE("the sequence maximum is the same function after the norm, but sees the future") {
  MixerConfig config = regla();
  config.key_max = KeyMax::Sequence;
  config.norm_epsilon = 0;
  check_mixer_contract(config, true);
}

TEST_CASE("ReGLA's norms and rotations keep the contract") {
  for (MixerNorm norm : {MixerNorm::Rms, MixerNorm::LayerNorm, MixerNorm::None}) {
    for (Rope rope : {Rope::Full, Rope::Partial, Rope::None}) {
      MixerConfig config = regla();
      config.norm = norm;
      config.rope = rope;
      config.feature_dim = 8;
      INFO(name_of(norm) << ", " << name_of(rope));
      check_mixer_contract(config);
    }
  }
}

TEST_CASE("gate initialisations keep the contract") {
  MixerConfig config = regla();
  config.gate_bias_init = GateBiasInit::Uniform;
  check_mixer_contract(config);
  config.gate_bias_init = GateBiasInit::Constant;
  config.gate_bias = -3;
  check_mixer_contract(config);
  config.gate_bias = 4;
  config.refine_bias = 2;
  check_mixer_contract(config);
}

TEST_CASE("gates that never or always forget: values agree and gradients stay finite") {
  for (double bias : {-1e4, -95.0, -50.0, 50.0, 95.0, 1e4}) {
    for (double refine : {-95.0, 0.0, 95.0}) {
      for (GateAxis axis : {GateAxis::Value, GateAxis::Key}) {
        MixerConfig config = regla();
        config.gate_axis = axis;
        config.gate_bias = bias;
        config.refine_bias = refine;
        for (DType dtype : {DType::F64, DType::F32}) {
          const TestMixer mixer(config, {}, dtype);
          const Carried start = mixer.start();
          Settings s;
          s.x = normal_tensor({2, 70, 12}, dtype, 1);
          s.d_y = normal_tensor(s.x.shape(), dtype, 2);
          s.start = &start;
          s.chunk = 1;
          const Named reference = run_segments(mixer, s);
          s.chunk = 64;
          const Named chunked = run_segments(mixer, s);
          INFO("gate " << bias << ", refine " << refine << ", " << name_of(axis) << ", "
                       << name_of(dtype));
          for (const Named* result : {&reference, &chunked}) {
            for (const auto& [name, value] : *result) CHECK(all_finite(value));
          }
          const double bound = dtype == DType::F64 ? 1e-10 : 1e-4;
          CHECK(relative_error(chunked.at("y"), reference.at("y")) < bound);
          CHECK(relative_error(chunked.at("end S"), reference.at("end S")) < bound);
        }
      }
    }
  }
}

}  // namespace regla::test
