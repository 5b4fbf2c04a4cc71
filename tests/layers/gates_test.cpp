#include "layers/gates.h"

#include <cmath>

#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr int64_t kHidden = 10, kHeads = 2, kK = 3, kV = 5;

LogDecays decays_of(const MixerConfig& config, ParameterList* parameters = nullptr) {
  static std::vector<std::unique_ptr<ForgetGate>> kept;
  kept.push_back(std::make_unique<ForgetGate>(config, MixerSizes{kHidden, kHeads, 0.3, 0.3}, kK, kV,
                                              ParameterFactory(1, DType::F64), "mixer"));
  if (parameters) kept.back()->parameters(*parameters);
  return (*kept.back())(normal_tensor({2, 4, kHidden}, DType::F64, 1));
}

std::vector<std::string> names_of_parameters(const MixerConfig& config) {
  ParameterList parameters;
  decays_of(config, &parameters);
  std::vector<std::string> names;
  for (const Parameter* parameter : parameters) names.push_back(parameter->name);
  return names;
}

}  // namespace

TEST_CASE("a gate acts on the axis that is asked for") {
  MixerConfig config;
  config.gate_axis = GateAxis::Value;
  CHECK(decays_of(config).value.shape() == Shape{2, 4, kHeads, kV});
  CHECK(!decays_of(config).key.defined());
  config.gate_axis = GateAxis::Key;
  CHECK(decays_of(config).key.shape() == Shape{2, 4, kHeads, kK});
  CHECK(!decays_of(config).value.defined());
  config.gate_axis = GateAxis::Both;
  CHECK(decays_of(config).key.shape() == Shape{2, 4, kHeads, kK});
  CHECK(decays_of(config).value.shape() == Shape{2, 4, kHeads, kV});
  config.gate_axis = GateAxis::Key;
  config.gate_projection = GateProjection::PerHead;
  CHECK(decays_of(config).scalar.shape() == Shape{2, 4, kHeads});
  CHECK(!decays_of(config).key.defined());
  config.gate = Gate::None;
  CHECK(!decays_of(config).scalar.defined());
}

TEST_CASE("gate parameters have their names") {
  using Names = std::vector<std::string>;
  CHECK(names_of_parameters(preset(MixerType::Regla)) ==
        Names{"mixer.gate.weight", "mixer.gate.bias", "mixer.refine.weight", "mixer.refine.bias"});
  CHECK(names_of_parameters(preset(MixerType::FastDecay)) ==
        Names{"mixer.gate_key.weight", "mixer.gate_key.bias", "mixer.gate_value.weight",
              "mixer.gate_value.bias"});
  CHECK(names_of_parameters(preset(MixerType::Gla)) ==
        Names{"mixer.gate.down.weight", "mixer.gate.down.bias", "mixer.gate.weight",
              "mixer.gate.bias"});
  CHECK(names_of_parameters(preset(MixerType::LinearElu)).empty());
}

TEST_CASE("the temperature divides the log-decay") {
  MixerConfig config;
  config.gate = Gate::Sigmoid;
  const Tensor whole = decays_of(config).value.value;
  config.gate_temperature = 16;
  const Tensor part = decays_of(config).value.value;
  const NoGrad guard;
  CHECK(relative_error(scale(part, 16).value, whole) < 1e-14);
}

TEST_CASE("the gates of both axes start from draws of their own") {
  MixerConfig config = preset(MixerType::FastDecay);
  config.gate_bias_init = GateBiasInit::Uniform;
  ParameterList parameters;
  decays_of(config, &parameters);
  REQUIRE(parameters.size() == 4);
  const std::vector<double> key = parameters[1]->value.values(),
                            value = parameters[3]->value.values();
  CHECK(key.size() == kHeads * kK);
  CHECK(value.size() == kHeads * kV);
  CHECK(key[0] != value[0]);
  CHECK(parameters[1]->role == Role::Bias);
}

TEST_CASE("what a gate keeps and lets in add up to one, also at its ends") {
  const std::vector<double> logs = {0, -1e-12, -1e-3, -1, -30, -1e4, -INFINITY};
  const auto count = static_cast<int64_t>(logs.size());
  const Tensor log_g = Tensor::of({1, 1, 1, count}, logs);
  const Tensor ones = Tensor::full({1, 1, 1, count}, 1, DType::F64);
  for (DType dtype : {DType::F64, DType::F32}) {
    const Var y = write_gate(converted(ones, dtype), converted(log_g, dtype));
    for (size_t i = 0; i < logs.size(); ++i) {
      const double bound = dtype == DType::F64 ? 1e-15 : 4e-7;
      const double expected = -std::expm1(logs[i]);
      CHECK(std::abs(y.value.values()[i] - expected) <= bound * expected);
    }
  }
}

}  // namespace regla::test
