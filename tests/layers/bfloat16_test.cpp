// Whole mixers in BF16 against F32 on numbers that were not rounded.

#include "tests/bfloat16.h"

#include "tests/layers/mixer_contract.h"

namespace regla::test {
namespace {

std::vector<std::pair<std::string, MixerConfig>> mixers() {
  std::vector<std::pair<std::string, MixerConfig>> list;
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    const auto type = static_cast<MixerType>(i);
    list.emplace_back(name_of(type), preset(type));
  }
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    MixerConfig config = preset(MixerType::Regla);
    config.feature_map = static_cast<FeatureMap>(i);
    list.emplace_back("regla, " + std::string(name_of(config.feature_map)), config);
  }
  MixerConfig per_head = preset(MixerType::Regla);
  per_head.gate_projection = GateProjection::PerHead;
  list.emplace_back("regla, gate per head", per_head);
  for (auto& [name, config] : list) {
    config.rope_base = 100;
    config.gate_rank = 3;
  }
  return list;
}

/// The contract: RMS of the difference over RMS.
double bound_of(const std::string& name) {
  const bool is_of_gate =
      name.find("gate") != std::string::npos || name.find("refine") != std::string::npos;
  return is_of_gate ? 2e-2 : 5e-3;
}

/// How much more than rounding what comes in may be lost where that alone takes up the contract. A
/// mixer rounds about three times as often on its way, and such errors add up as their squares do.
constexpr double kOnTheWay = 2.1;

Tensor rounded_to(DType door, const Tensor& x) { return converted(converted(x, door), DType::F32); }

/// Values, then gradients, of a segment in chunks whose inputs and matrices are of the type `door`
/// before they come into the mixer's.
Named results(const MixerConfig& config, DType dtype, DType door) {
  const ContractSizes sizes = {.hidden = 64, .heads = 4};
  const TestMixer mixer(config, sizes, dtype);
  for (Parameter* parameter : mixer.parameters) {
    if (!is_matrix(parameter->role)) continue;
    parameter->value = rounded_to(door, parameter->value);
    parameter->keep_copy(dtype);
  }
  Settings s;
  s.x = normal_tensor({sizes.B, sizes.T, sizes.hidden}, DType::F32, 1);
  s.d_y = normal_tensor(s.x.shape(), DType::F32, 2);
  s.x = converted(rounded_to(door, s.x), dtype);
  s.d_y = converted(rounded_to(door, s.d_y), dtype);
  s.chunk = 16;
  s.seed_state = false;
  return run_segments(mixer, s);
}

}  // namespace

TEST_CASE("mixers in BF16 are as close to exact ones as rounded inputs and matrices allow") {
  for (const auto& [name, config] : mixers()) {
    INFO(name);
    const Named rounded = results(config, DType::BF16, DType::BF16);
    // Nothing in BF16 can be closer than F32 that begins with the same numbers.
    const Named door = results(config, DType::F32, DType::BF16);
    for (const auto& [what, exact] : results(config, DType::F32, DType::F32)) {
      INFO(what);
      if (!exact.defined() || exact.dtype() == DType::I32) continue;
      REQUIRE(rounded.contains(what));
      const Tensor& value = rounded.at(what);
      const bool is_activation =
          what == "y" || what == "d x" || what == "end keys" || what == "end values";
      CHECK(value.dtype() == (is_activation ? DType::BF16 : DType::F32));
      if (rms_of(exact) < 1e-5) continue;  // a gradient that cancels, as that of a key's bias
      const Distance at_door = distance(door.at(what), exact), here = distance(value, exact);
      CHECK(here.rms <= std::max(bound_of(what), kOnTheWay * at_door.rms));
      CHECK(here.furthest <= std::max(kFurthest, kOnTheWay * at_door.furthest));
    }
  }
}

TEST_CASE("a token in BF16 is decoded as it was trained") {
  const ContractSizes sizes = {.T = 9, .hidden = 64, .heads = 4};
  for (const auto& [name, config] : mixers()) {
    INFO(name);
    const TestMixer mixer(config, sizes, DType::BF16);
    const Tensor x = normal_tensor({sizes.B, sizes.T, sizes.hidden}, DType::BF16, 1);
    const Tensor whole = mixer->chunked(x, {}, nullptr).value;
    MixerState state = mixer->initial_state(sizes.B);
    Tensor next;
    Tensors ys;
    for (int64_t t = 0; t < sizes.T; ++t) {
      const Tensor token = tokens(x, t, t + 1).reshape({sizes.B, sizes.hidden});
      ys.push_back(mixer->step(token, segment_positions(sizes.B, 1, {}, next), state)
                       .reshape({sizes.B, 1, sizes.hidden}));
    }
    CHECK(ys[0].dtype() == DType::BF16);
    check_rounded(joined(ys), whole, 5e-3);
  }
}

}  // namespace regla::test
