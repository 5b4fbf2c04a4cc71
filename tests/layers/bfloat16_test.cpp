// Whole mixers in BF16 against F32 on numbers that were not rounded.

#include "tests/layers/mixer_cases.h"
#include "tests/layers/mixer_precision.h"

namespace regla::test {

TEST_CASE("mixers in BF16 are as close to exact ones as rounded inputs and matrices allow") {
  for (const auto& [name, config] : mixers_and_maps()) {
    INFO(name);
    const PrecisionCase c = {config, kBfloat16Sizes};
    check_mixer_rounding(results(c, DType::BF16, DType::BF16), results(c, DType::F32, DType::BF16),
                         results(c, DType::F32, DType::F32));
  }
}

TEST_CASE("a token in BF16 is decoded as it was trained") {
  for (const auto& [name, config] : mixers_and_maps()) {
    INFO(name);
    check_bfloat16_steps(config, {.T = 9, .hidden = 64, .heads = 4});
  }
}

}  // namespace regla::test
