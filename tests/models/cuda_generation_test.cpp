// Texts that a GPU continues beside the CPU's.

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "autograd/ops.h"
#include "models/generation.h"
#include "tests/gpu.h"
#include "tests/support.h"

namespace regla::test {
namespace {

ModelConfig model_of(MixerType type) {
  ModelConfig config;
  config.layers = 3;
  config.hidden = 64;
  config.heads = 2;
  config.mlp = 160;
  config.vocab = 259;
  config.mixer[0] = preset(type);
  config.mixer[0].rope = Rope::Full;
  return config;
}

/// Scores that lie far apart, so that a text is no repetition of one token.
void make_lively(Decoder& decoder) {
  for (Parameter* parameter : decoder.parameters()) {
    const double factor = parameter->role == Role::Table ? 30 : is_matrix(parameter->role) ? 3 : 1;
    const NoGrad guard;
    parameter->value = scale(parameter->value, factor).value;
  }
}

/// How far the best score is ahead of the second.
double lead(const Tensor& scores) {
  std::vector<double> all = scores.values();
  std::partial_sort(all.begin(), all.begin() + 2, all.end(), std::greater<>());
  return all[0] - all[1];
}

}  // namespace

TEST_CASE("greedy texts of a GPU are the CPU's until two scores are nearly equal", "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  constexpr int64_t kNew = 400;
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax, MixerType::Gla,
                               MixerType::DeltaNet, MixerType::FastDecay}) {
    INFO(name_of(type));
    Decoder here(model_of(type), 5, DType::F32), there(model_of(type), 5, DType::F32, *device);
    make_lively(here);
    make_lively(there);
    const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
    const GenerationOptions options = {.sampling = {.temperature = 0}, .max_new_tokens = kNew};
    const std::vector<int32_t> wanted = generate(here, prompt, options);
    const std::vector<int32_t> got = generate(there, prompt, options);
    REQUIRE(wanted.size() == kNew);
    REQUIRE(got.size() == kNew);
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), wanted.begin(), wanted.end());
    const auto length = static_cast<int64_t>(all.size());
    const Tensor scores = all_logits(here, Tensor::of({1, length}, all)).reshape({length, 259});
    size_t compared = 0;
    for (; compared < wanted.size(); ++compared) {
      const auto row = static_cast<int64_t>(prompt.size() + compared) - 1;
      if (lead(scores.slice(row, row + 1)) < 1e-4) break;
      REQUIRE(got[compared] == wanted[compared]);
    }
    CHECK(compared > kNew / 4);
    const std::vector<int32_t> text(wanted.begin(), wanted.begin() + static_cast<long>(compared));
    CHECK(std::set<int32_t>(text.begin(), text.end()).size() > 5);
  }
}

TEST_CASE("a GPU's text has the same bits whatever its batch is, and where it was interrupted",
          "[cuda]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  const auto some = [](int32_t length, int32_t first) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < length; ++i) ids.push_back((first + 5 * i * i + i) % 259);
    return ids;
  };
  const std::vector<int32_t> own = some(9, 4);
  GenerationOptions options = {.sampling = {.min_p = 0.002, .repetition_penalty = 1.1, .seed = 4},
                               .max_new_tokens = 300};
  for (const MixerType type : {MixerType::Regla, MixerType::Softmax, MixerType::Gla,
                               MixerType::DeltaNet, MixerType::FastDecay}) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      INFO(name_of(type) << ", " << name_of(dtype));
      Decoder decoder(model_of(type), 5, dtype, *device);
      const auto beside = [&](const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
        TextState texts = read_prompts(decoder, std::vector<std::vector<int32_t>>{a, own, b});
        std::vector<int32_t> ids = continue_texts(decoder, texts, options)[1];
        return std::pair(ids, texts.scores.slice(1, 2).on(Device{}));
      };
      const auto [ids, scores] = beside(some(3, 1), some(30, 2));
      for (const auto& [a, b] : {std::pair(some(700, 3), some(1, 9)), std::pair(own, own)}) {
        const auto [others, bits] = beside(a, b);
        CHECK(others == ids);
        CHECK(same_bits(bits, scores));
      }
      options.max_new_tokens = 300;
      const std::vector<int32_t> whole = generate(decoder, own, options);
      TextState text;
      read_on(decoder, text, own);
      std::vector<int32_t> parts;
      for (const int64_t count : {1, 150, 149}) {
        options.max_new_tokens = count;
        const std::vector<int32_t> part = write_on(decoder, text, options);
        parts.insert(parts.end(), part.begin(), part.end());
        // As from a file: in other memory, with room for nothing more.
        text.state = text.state.clone();
      }
      options.max_new_tokens = 300;
      CHECK(parts == whole);
    }
  }
}

TEST_CASE("decoding on a GPU stays within its memory", "[cuda][sanitizer]") {
  const std::optional<Device> device = gpu();
  if (!device) return;
  ModelConfig config = model_of(MixerType::Regla);
  config.mixer = {config.mixer[0], preset(MixerType::Softmax), preset(MixerType::DeltaNet)};
  constexpr int kTokens = 5;  // by calls, recorded, and repeated
  const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
  const GenerationOptions options = {.sampling = {.temperature = 1,
                                                  .top_k = 40,
                                                  .top_p = 0.9,
                                                  .min_p = 0.01,
                                                  .repetition_penalty = 1.2},
                                     .max_new_tokens = kTokens};
  for (const DType dtype : {DType::F32, DType::BF16}) {
    Decoder decoder(config, 5, dtype, *device);
    CHECK(generate(decoder, prompt, options).size() == size_t{kTokens});
  }
}

}  // namespace regla::test
