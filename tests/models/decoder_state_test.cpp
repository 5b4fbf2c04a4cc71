#include "models/decoder_state.h"

#include "models/decoder.h"
#include "tests/matchers.h"

namespace regla {

TEST_CASE("sequences of a state are gathered in any order, in memory of their own") {
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax}) {
    ModelConfig config = {.layers = 2, .hidden = 8, .heads = 2, .vocab = 20};
    config.mixer = {MixerConfig{.type = type, .rope = Rope::Full}};
    Decoder decoder(config, 1, DType::F64);
    DecoderState state = decoder.initial_state(3);
    const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 1};
    const NoGrad guard;
    decoder.hidden(decoder.ids({3, 4}, ids), {}, &state);
    const std::vector<int64_t> chosen = {2, 0, 2, 2};
    DecoderState gathered = state.gathered(chosen);
    const std::vector<int32_t> next = {7, 7, 7, 7};
    const Tensor together = decoder.step(decoder.ids({4}, next), gathered);
    for (size_t i = 0; i < chosen.size(); ++i) {
      DecoderState alone = state.rows(chosen[i], chosen[i] + 1).clone();
      const auto row = static_cast<int64_t>(i);
      const auto scores = decoder.step(decoder.ids({1}, {7}), alone).values();
      const auto others = together.slice(row, row + 1).values();
      for (size_t k = 0; k < scores.size(); ++k) {  // products of one row are summed otherwise
        CHECK(others[k] == Approx(scores[k]).epsilon(1e-12));
      }
    }
    CHECK(state.position.values() == std::vector<double>{4, 4, 4});  // it did not move
  }
}

}  // namespace regla
