#include "models/decoder_state.h"

#include <algorithm>

#include "models/decoder.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla {

TEST_CASE("sequences of several states go on together, by steps and by segments, each as alone") {
  for (const char* mixer : {"regla", "softmax", "window"}) {
    CAPTURE(mixer);
    ModelConfig config = {.layers = 2, .hidden = 8, .heads = 2, .vocab = 20};
    config.mixer = {preset(std::string(mixer) == "regla" ? MixerType::Regla : MixerType::Softmax)};
    config.mixer[0].rope = Rope::Full;
    if (std::string(mixer) == "window") config.mixer[0].window = 5;
    Decoder decoder(config, 1, DType::F64);
    const NoGrad guard;
    // Three of four tokens, one of nine; two of them twice.
    DecoderState three = decoder.initial_state(3), nine = decoder.initial_state(1);
    const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 1};
    decoder.hidden(decoder.ids({3, 4}, ids), {}, &three);
    decoder.hidden(decoder.ids({1, 9}, {ids.begin(), ids.begin() + 9}), {}, &nine);
    const std::vector<DecoderState> parts = {three.rows(2, 3), nine, three.rows(0, 1), nine};
    const auto count = static_cast<int64_t>(parts.size());
    const std::vector<int32_t> next = {7, 3, 11, 5, 6, 2, 7, 3, 0, 1, 9, 3};
    const int64_t T = 3;
    for (const int64_t room : {int64_t{0}, T}) {
      CAPTURE(room);
      DecoderState segment = DecoderState::joined(parts, room);
      const Tensor hidden = decoder.hidden(decoder.ids({count, T}, next), {}, &segment).value;
      DecoderState stepped = DecoderState::joined(parts, room);
      for (int64_t i = 0; i < count; ++i) {
        CAPTURE(i);
        const auto* from = next.data() + i * T;
        DecoderState alone = parts[static_cast<size_t>(i)].clone();
        const Tensor own = decoder.hidden(decoder.ids({1, T}, {from, from + T}), {}, &alone).value;
        CHECK(test::relative_error(hidden.slice(i, i + 1), own) < 1e-12);
        CHECK(segment.position.values()[static_cast<size_t>(i)] == alone.position.values()[0]);
      }
      for (int64_t t = 0; t < T; ++t) {
        std::vector<int32_t> tokens;
        for (int64_t i = 0; i < count; ++i) tokens.push_back(next[static_cast<size_t>(i * T + t)]);
        const Tensor scores = decoder.step(decoder.ids({count}, tokens), stepped);
        const Tensor others = decoder.logits(hidden.reshape({count * T, 8})).value;
        for (int64_t i = 0; i < count; ++i) {
          CHECK(test::relative_error(scores.slice(i, i + 1),
                                     others.slice(i * T + t, i * T + t + 1)) < 1e-12);
        }
      }
    }
    CHECK(three.position.values() == std::vector<double>{4, 4, 4});  // they did not move
    CHECK(nine.position.values() == std::vector<double>{9});
  }
}

}  // namespace regla
