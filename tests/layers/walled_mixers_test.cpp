// The contract of every mixer on a device whose memory nothing but kernels and Memory may touch.
#include <map>
#include <string>

#include "tests/layers/mixer_contract.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

/// Every mixer by its name, and the forms that have tensors of their own.
std::map<std::string, MixerConfig> walled_mixers() {
  std::map<std::string, MixerConfig> mixers;
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    MixerConfig& mixer = mixers[std::string(names_of(MixerType{})[i])];
    mixer = preset(static_cast<MixerType>(i));
    mixer.rope = Rope::Full;
  }
  mixers["softmax, window"] = preset(MixerType::Softmax);
  mixers["softmax, window"].window = 8;
  mixers["rfa, redrawn"] = preset(MixerType::Rfa);
  mixers["rfa, redrawn"].redraw_every = 3;
  return mixers;
}

}  // namespace

TEST_CASE("every mixer keeps the contract behind the wall") {
  for (const auto& [name, config] : walled_mixers()) {
    INFO(name);
    check_mixer_contract(config, false, {.T = 13, .past = 3, .device = walled_device()});
  }
}

TEST_CASE("every mixer computes the CPU's bits behind the wall") {
  for (const auto& [name, config] : walled_mixers()) {
    for (const DType dtype : {DType::F32, DType::F64}) {
      const auto run = [&](Device device) {
        const TestMixer mixer(config, {.T = 13, .device = device}, dtype);
        mixer->begin_step(4);
        const Carried start = mixer.start();
        Settings s;
        s.x = mixer.normal({2, 13, 12}, 1, dtype);
        s.d_y = mixer.normal(s.x.shape(), 2, dtype);
        s.reset = random_mask({2, 13}, 8, 0.1).on(device);
        s.start = &start;
        s.splits = {5};
        return run_segments(mixer, s);
      };
      const Named expected = run({}), got = run(walled_device());
      REQUIRE(got.size() == expected.size());
      for (const auto& [what, value] : expected) {
        INFO(name << ", " << name_of(dtype) << ", " << what);
        CHECK(same_bits(got.at(what), value));
      }
    }
  }
}

}  // namespace regla::test
