// Texts of different lengths in one batch, and texts that go on later.

#include "models/text_state.h"

#include <algorithm>
#include <string>

#include "models/generation.h"
#include "tests/layers/mixer_cases.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

using Prompts = std::vector<std::vector<int32_t>>;

constexpr int32_t kVocab = 53;

ModelConfig model_of(const MixerConfig& mixer) {
  ModelConfig config = {.layers = 2, .hidden = 16, .heads = 2, .mlp = 24, .vocab = kVocab};
  config.mixer = {mixer};
  return config;
}

/// Every mixer by its name, softmax attention with windows too, and one of each in a model.
Cases models() {
  Cases cases = presets();
  for (const int64_t window : {0, 1, 6, 20}) {
    cases.push_back(with("window " + std::to_string(window), MixerType::Softmax,
                         [=](MixerConfig& c) { c.window = window; }));
  }
  return cases;
}

std::vector<int32_t> some_prompt(int32_t length, int32_t first) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < length; ++i) ids.push_back((first + 7 * i * i + 3 * i) % kVocab);
  return ids;
}

/// The scores of a sequence's tokens while the batch reads what is drawn.
std::vector<Tensor> scores_of(Decoder& decoder, const Prompts& prompts, int64_t sequence) {
  const NoGrad guard;
  TextState texts = read_prompts(decoder, prompts);
  const auto B = static_cast<int64_t>(prompts.size());
  std::vector<Tensor> scores;
  for (int32_t i = 0; i < 30; ++i) {
    scores.push_back(texts.scores.slice(sequence, sequence + 1).clone());
    std::vector<int32_t> next;  // the others read something else
    for (int64_t b = 0; b < B; ++b) {
      const int32_t other = prompts[static_cast<size_t>(b)][0];
      next.push_back(b == sequence ? 5 * i % kVocab : (other + i) % kVocab);
    }
    texts.scores = decoder.step(decoder.ids({B}, next), texts.state);
  }
  return scores;
}

}  // namespace

TEST_CASE("a text's scores have the same bits whatever the other texts of its batch are") {
  const auto own = some_prompt(9, 4);
  for (const auto& [name, mixer] : models()) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      INFO(name << ", " << name_of(dtype));
      Decoder decoder(model_of(mixer), 3, dtype);
      const Prompts first = {some_prompt(31, 1), own, some_prompt(2, 8)};
      const auto wanted = scores_of(decoder, first, 1);
      for (const Prompts& prompts :
           {Prompts{some_prompt(1, 2), own, some_prompt(70, 9)},
            Prompts{some_prompt(9, 30), own, some_prompt(9, 31)}, Prompts{own, own, own}}) {
        const auto got = scores_of(decoder, prompts, 1);
        for (size_t i = 0; i < wanted.size(); ++i) REQUIRE(same_bits(got[i], wanted[i]));
      }
      const auto moved = scores_of(decoder, {own, some_prompt(40, 3), some_prompt(3, 3)}, 0);
      for (size_t i = 0; i < wanted.size(); ++i) REQUIRE(same_bits(moved[i], wanted[i]));
    }
  }
}

TEST_CASE("greedy texts of a batch are those of the prompts alone, drawn ones of their rows") {
  const Prompts prompts = {some_prompt(31, 1), some_prompt(1, 7), some_prompt(12, 9),
                           some_prompt(5, 20)};
  for (const auto& [name, mixer] : models()) {
    INFO(name);
    Decoder decoder(model_of(mixer), 3, DType::F64);
    for (const double temperature : {0.0, 1.0}) {
      GenerationOptions options = {
          .sampling = {.temperature = temperature, .repetition_penalty = 1.2, .seed = 8},
          .max_new_tokens = 25};
      TextState texts = read_prompts(decoder, prompts);
      const auto together = continue_texts(decoder, texts, options);
      REQUIRE(together.size() == prompts.size());
      for (size_t b = 0; b < prompts.size(); ++b) {
        options.first_row = static_cast<int64_t>(b);
        CHECK(together[b] == generate(decoder, prompts[b], options));
      }
    }
  }
}

TEST_CASE("texts of a batch end one by one") {
  Decoder decoder(model_of(small(MixerType::Regla)), 3, DType::F64);
  const Prompts prompts = {some_prompt(6, 1), some_prompt(2, 7), some_prompt(3, 9)};
  GenerationOptions options = {.sampling = {.seed = 2}, .max_new_tokens = 40};
  TextState texts = read_prompts(decoder, prompts);
  const auto whole = continue_texts(decoder, texts, options);
  options.stop = whole[1][4];
  std::vector<size_t> told(3);
  texts = read_prompts(decoder, prompts);
  const auto cut = continue_texts(decoder, texts, options, [&](int64_t b, int32_t id) {
    const auto row = static_cast<size_t>(b);
    CHECK(id == whole[row][told[row]++]);
    return b != 2 || told[2] < 3;
  });
  for (size_t b = 0; b < 3; ++b) {
    auto end = std::find(whole[b].begin(), whole[b].end(), options.stop);
    if (b == 2) end = std::min(end, whole[b].begin() + 3);
    CHECK(cut[b] == std::vector<int32_t>(whole[b].begin(), end));
    CHECK(told[b] == cut[b].size());
  }
}

TEST_CASE("a text goes on with the bits of one that was never interrupted") {
  for (const auto& [name, mixer] : models()) {
    for (const Device device : {Device{}, walled_device()}) {
      INFO(name << ", " << device.text());
      Decoder decoder(model_of(mixer), 3, DType::F32, device);
      GenerationOptions options = {
          .sampling = {.min_p = 0.01, .repetition_penalty = 1.1, .seed = 8}, .max_new_tokens = 30};
      const auto prompt = some_prompt(9, 4);
      const auto whole = generate(decoder, prompt, options);
      TextState text;
      read_on(decoder, text, prompt);
      std::vector<int32_t> parts;
      for (const int64_t count : {0, 1, 17, 12}) {
        options.max_new_tokens = count;
        const auto part = write_on(decoder, text, options);
        parts.insert(parts.end(), part.begin(), part.end());
        CHECK(text.draws == static_cast<int64_t>(parts.size()));
      }
      CHECK(parts == whole);
      // Where the text was ended from outside, or by a token, it goes on from there, too.
      text = {};
      read_on(decoder, text, prompt);
      options.max_new_tokens = 30;
      size_t seen = 0;
      parts = write_on(decoder, text, options, [&](int32_t) { return ++seen < 11; });
      options.stop = whole[20];
      auto more = write_on(decoder, text, options);
      options.stop = -1;
      parts.insert(parts.end(), more.begin(), more.end());
      options.max_new_tokens = 30 - static_cast<int64_t>(parts.size());
      more = write_on(decoder, text, options);
      parts.insert(parts.end(), more.begin(), more.end());
      CHECK(parts == whole);
    }
  }
}

TEST_CASE("a text that reads on remembers what it read and wrote") {
  for (const auto& [name, mixer] : models()) {
    INFO(name);
    Decoder decoder(model_of(mixer), 3, DType::F64);
    const GenerationOptions options = {.sampling = {.temperature = 0}, .max_new_tokens = 12};
    TextState text;
    std::vector<int32_t> all;
    for (const auto& part : {some_prompt(9, 4), some_prompt(1, 30), some_prompt(14, 2)}) {
      read_on(decoder, text, part);
      all.insert(all.end(), part.begin(), part.end());
      const auto wanted = generate(decoder, all, options);
      CHECK(write_on(decoder, text, options) == wanted);
      all.insert(all.end(), wanted.begin(), wanted.end());
    }
    CHECK(text.seen[0] == std::set<int32_t>(all.begin(), all.end()));
  }
}

TEST_CASE("what ReGLA remembers takes the same bytes at any length, a cache grows") {
  for (const MixerType type : {MixerType::Regla, MixerType::FastDecay, MixerType::Softmax}) {
    Decoder decoder(model_of(small(type)), 3);
    std::vector<int64_t> bytes;
    for (const int64_t length : {64, 8192}) {
      TextState text = read_prompts(decoder, Prompts{some_prompt(5, 1)});
      const GenerationOptions options = {.sampling = {}, .max_new_tokens = length};
      continue_texts(decoder, text, options);
      bytes.push_back(text.state.bytes());
    }
    INFO(name_of(type));
    if (type == MixerType::Softmax) {
      CHECK(bytes[1] > 100 * bytes[0]);
    } else {
      CHECK(bytes[1] == bytes[0]);
    }
  }
}

TEST_CASE("no prompt, an empty one and one of ids that are not there are refused") {
  Decoder decoder(model_of(small(MixerType::Regla)), 3);
  CHECK_THROWS_WITH(read_prompts(decoder, {}), Contains("expected a prompt"));
  CHECK_THROWS_WITH(read_prompts(decoder, Prompts{{1}, {}}), Contains("at least one token"));
  CHECK_THROWS_WITH(read_prompts(decoder, Prompts{{1}, {kVocab}}), Contains("outside that range"));
  TextState two = read_prompts(decoder, Prompts{{1}, {2}});
  CHECK_THROWS_WITH(write_on(decoder, two, {}), Contains("a single text"));
}

}  // namespace regla::test
