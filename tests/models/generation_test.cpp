#include "models/generation.h"

#include <array>
#include <cmath>
#include <set>

#include "tests/matchers.h"

namespace regla {
namespace {

ModelConfig small_model(MixerType type) {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 16;
  config.heads = 2;
  config.vocab = 24;
  config.mixer[0].type = type;
  config.mixer[0].rope = Rope::Full;
  return config;
}

const std::vector<double> kScores = {std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)};

std::set<int32_t> drawn(const SamplingOptions& options) {
  std::set<int32_t> ids;
  for (uint64_t i = 0; i < 500; ++i) ids.insert(sample(kScores, options, i));
  return ids;
}

}  // namespace

TEST_CASE("temperature 0 is greedy, and the first of equals") {
  CHECK(sample(kScores, {.temperature = 0}, 7) == 1);
  CHECK(sample(std::vector<double>{1, 3, 3, 2}, {.temperature = 0}, 0) == 1);
}

TEST_CASE("draws follow the distribution") {
  std::array<int, 4> counts{};
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[static_cast<size_t>(sample(kScores, {.seed = 3}, static_cast<uint64_t>(i)))];
  }
  for (size_t id = 0; id < 4; ++id) {
    CHECK(counts[id] / static_cast<double>(kDraws) == Approx(std::exp(kScores[id])).margin(0.015));
  }
}

TEST_CASE("top-k and top-p keep the most probable") {
  CHECK(drawn({}) == std::set<int32_t>{0, 1, 2, 3});
  CHECK(drawn({.top_k = 1}) == std::set<int32_t>{1});
  CHECK(drawn({.top_k = 2}) == std::set<int32_t>{1, 3});
  CHECK(drawn({.top_k = 9}) == std::set<int32_t>{0, 1, 2, 3});
  CHECK(drawn({.top_p = 0.3}) == std::set<int32_t>{1});
  CHECK(drawn({.top_p = 0.65}) == std::set<int32_t>{1, 3});
  CHECK(drawn({.top_p = 0.95}) == std::set<int32_t>{0, 1, 2, 3});
  CHECK(drawn({.top_k = 3, .top_p = 0.9}) == std::set<int32_t>{1, 2, 3});
  CHECK(drawn({.min_p = 0.26}) == std::set<int32_t>{1, 2, 3});  // 0.25 of the likeliest is not
  CHECK(drawn({.min_p = 0.24}) == std::set<int32_t>{0, 1, 2, 3});
  CHECK(drawn({.min_p = 1}) == std::set<int32_t>{1});
  CHECK(drawn({.top_k = 2, .min_p = 0.4}) == std::set<int32_t>{1, 3});
  CHECK(drawn({.temperature = 4, .min_p = 0.6}) == std::set<int32_t>{0, 1, 2, 3});
}

TEST_CASE("options that make no sense are refused") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const SamplingOptions& bad :
       {SamplingOptions{.temperature = -1}, SamplingOptions{.temperature = infinity},
        SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0}, SamplingOptions{.top_p = 1.5},
        SamplingOptions{.min_p = -0.1}, SamplingOptions{.min_p = 1.1},
        SamplingOptions{.repetition_penalty = 0},
        SamplingOptions{.repetition_penalty = infinity}}) {
    CHECK_THROWS_AS(bad.validate(), Error);
  }
  CHECK_THROWS_AS(sample(std::vector<double>{0, infinity}, {}, 0), Error);
}

TEST_CASE("a text is continued by what the whole text would give") {
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax}) {
    Decoder decoder(small_model(type), 5, DType::F64);
    const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
    const GenerationOptions options = {.sampling = {.temperature = 0}, .max_new_tokens = 20};
    const std::vector<int32_t> ids = generate(decoder, prompt, options);
    REQUIRE(ids.size() == 20);
    std::vector<int32_t> all = prompt;
    for (const int32_t id : ids) all.push_back(id);
    const Tensor logits = all_logits(decoder, Tensor::of({1, 25}, all)).reshape({25, 24});
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto row = static_cast<int64_t>(i) + 4;
      CHECK(ids[i] == sample(logits.slice(row, row + 1).values(), options.sampling, 0));
    }
  }
}

TEST_CASE("a repetition penalty has a text use every token before it comes back") {
  Decoder decoder(small_model(MixerType::Regla), 5, DType::F64);
  const std::vector<int32_t> prompt = {3, 1, 4};
  GenerationOptions options = {.sampling = {.temperature = 0, .repetition_penalty = 1e9},
                               .max_new_tokens = 60};
  // A token that was seen has a score near 0, or far below: as long as another has one above, that
  // is drawn. So no token of prompt or text comes again before those are used up.
  const std::vector<int32_t> ids = generate(decoder, prompt, options);
  std::vector<int32_t> all = prompt;
  std::set<int32_t> seen(prompt.begin(), prompt.end());
  for (const int32_t id : ids) {
    const auto length = static_cast<int64_t>(all.size());
    const std::vector<double> scores = all_logits(decoder, Tensor::of({1, length}, all))
                                           .reshape({length, 24})
                                           .slice(length - 1, length)
                                           .values();
    std::vector<double> penalised = scores;
    for (const int32_t old : seen) {
      double& score = penalised[static_cast<size_t>(old)];
      score = score > 0 ? score / 1e9 : score * 1e9;
    }
    const auto best = std::max_element(penalised.begin(), penalised.end()) - penalised.begin();
    REQUIRE(id == static_cast<int32_t>(best));
    all.push_back(id);
    seen.insert(id);
  }
  options.sampling.repetition_penalty = 1;
  CHECK(generate(decoder, prompt, options) != ids);
}

TEST_CASE("generation is reproducible, stops and leaves padding alone") {
  Decoder decoder(small_model(MixerType::Regla), 5, DType::F32);
  const std::vector<int32_t> prompt = {2};
  GenerationOptions options = {.sampling = {.seed = 9}, .max_new_tokens = 200, .vocab = 20};
  const std::vector<int32_t> ids = generate(decoder, prompt, options);
  CHECK(ids == generate(decoder, prompt, options));
  CHECK(ids.size() == 200);
  CHECK(*std::max_element(ids.begin(), ids.end()) < 20);
  options.stop = ids[7];
  const auto first = std::find(ids.begin(), ids.end(), ids[7]);
  CHECK(generate(decoder, prompt, options) == std::vector<int32_t>(ids.begin(), first));
  options.stop = -1;
  CHECK(generate(decoder, prompt, options, [](int32_t) { return false; }).size() == 1);
  options.sampling.seed = 10;
  CHECK(generate(decoder, prompt, options) != ids);
  options.max_new_tokens = 0;
  CHECK(generate(decoder, prompt, options).empty());
  CHECK_THROWS_AS(generate(decoder, {}, options), Error);
}

TEST_CASE("a mixer that needs later tokens is not decoded token by token") {
  for (const FeatureMap map : {FeatureMap::SafeExp, FeatureMap::Favor}) {
    ModelConfig config = small_model(MixerType::Regla);
    config.mixer.push_back(config.mixer[0]);
    config.mixer[1].feature_map = map;
    config.mixer[1].key_max = KeyMax::Sequence;
    Decoder decoder(config, 5);
    const auto reason = Contains("mixer.1.key_max = sequence cannot be decoded token by token");
    CHECK_THROWS_WITH(
        generate(decoder, std::vector<int32_t>{3, 1}, {.sampling = {}, .max_new_tokens = 1}),
        reason);
    const Tensor ids = Tensor::of({1, 2}, std::vector<int32_t>{3, 1});
    CHECK_THROWS_WITH(all_logits(decoder, ids, Form::Step), Contains("token by token"));
    CHECK(all_logits(decoder, ids, Form::Recurrent).shape() == Shape{1, 2, 24});
    config.mixer[1].type = MixerType::Softmax;  // reads no such key
    Decoder softmax(config, 5);
    CHECK(generate(softmax, std::vector<int32_t>{3, 1}, {.sampling = {}, .max_new_tokens = 3})
              .size() == 3);
  }
}

TEST_CASE("with resets each document has the logits that it has alone, in every form") {
  const auto part = [](const std::vector<int32_t>& all, int64_t begin, int64_t end) {
    return Tensor::of({1, end - begin},
                      std::vector<int32_t>(all.begin() + begin, all.begin() + end));
  };
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax}) {
    Decoder decoder(small_model(type), 5, DType::F64);
    std::vector<int32_t> ids, reset(2 * 37);
    for (int32_t i = 0; i < 2 * 37; ++i) ids.push_back(i * 7 % 24);
    const std::vector<int64_t> starts = {0, 11, 12, 37, 60, 74};  // two rows of 37
    for (const int64_t start : {11, 12, 37, 60}) reset[static_cast<size_t>(start)] = 1;
    std::vector<double> expected;
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      const auto alone = all_logits(decoder, part(ids, starts[i], starts[i + 1])).values();
      expected.insert(expected.end(), alone.begin(), alone.end());
    }
    const Tensor grid = Tensor::of({2, 37}, ids), mask = Tensor::of({2, 37}, reset);
    for (const Form form : {Form::Chunked, Form::Recurrent, Form::Step}) {
      INFO(name_of(type) << ", " << name_of(form));
      const auto got = all_logits(decoder, grid, form, {.reset = mask}).values();
      REQUIRE(got.size() == expected.size());
      for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) < 1e-11);
    }
  }
}

TEST_CASE("the forms of the logits agree") {
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax}) {
    Decoder decoder(small_model(type), 5, DType::F64);
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 3 * 37; ++i) ids.push_back(i * 7 % 24);
    const Tensor grid = Tensor::of({3, 37}, ids);
    const auto expected = all_logits(decoder, grid, Form::Step).values();
    for (const auto& [form, chunk] : {std::pair(Form::Chunked, 0), std::pair(Form::Chunked, 5),
                                      std::pair(Form::Recurrent, 0)}) {
      const auto got = all_logits(decoder, grid, form, {.reset = {}, .chunk = chunk}).values();
      for (size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) < 1e-11);
    }
  }
}

}  // namespace regla
