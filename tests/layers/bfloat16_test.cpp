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

bool is_of_gate(const std::string& name) {
  return name.find("gate") != std::string::npos || name.find("refine") != std::string::npos;
}

/// Values, then gradients, of a segment in chunks.
Named results(const TestMixer& mixer, DType dtype) {
  Settings s;
  s.x = normal_tensor({mixer.n.B, mixer.n.T, mixer.n.hidden}, dtype, 1);
  s.d_y = normal_tensor(s.x.shape(), dtype, 2);
  s.chunk = 16;
  return run_segments(mixer, s);
}

}  // namespace

TEST_CASE("whole mixers in BF16 agree with F32 on exact numbers") {
  const ContractSizes sizes = {.hidden = 64, .heads = 4};
  for (const auto& [name, config] : mixers()) {
    INFO(name);
    const Named rounded = results({config, sizes, DType::BF16}, DType::BF16);
    for (const auto& [what, exact] : results({config, sizes, DType::F32}, DType::F32)) {
      INFO(what);
      if (!exact.defined() || exact.dtype() == DType::I32) continue;
      REQUIRE(rounded.contains(what));
      const Tensor& value = rounded.at(what);
      const bool is_activation =
          what == "y" || what == "d x" || what == "end keys" || what == "end values";
      CHECK(value.dtype() == (is_activation ? DType::BF16 : DType::F32));
      if (rms_of(exact) < 1e-5) continue;  // a gradient that cancels, as that of a key's bias
      check_rounded(value, exact, is_of_gate(what) ? 2e-2 : 5e-3);
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
    Tensors ys;
    for (int64_t t = 0; t < sizes.T; ++t) {
      const Tensor token = tokens(x, t, t + 1).reshape({sizes.B, sizes.hidden});
      ys.push_back(mixer->step(token, state).reshape({sizes.B, 1, sizes.hidden}));
    }
    CHECK(ys[0].dtype() == DType::BF16);
    check_rounded(joined(ys), whole, 5e-3);
  }
}

}  // namespace regla::test
