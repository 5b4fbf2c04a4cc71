#include "models/inspection.h"

#include "tests/catch.h"

namespace regla {
namespace {

int64_t size_of_part(const Decoder& decoder, const std::string& name) {
  for (const PartSize& part : parameters_by_part(decoder)) {
    if (part.part == name) return part.parameters;
  }
  return 0;
}

ModelConfig small_model() {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 8;
  config.heads = 2;
  config.mlp = 16;
  config.vocab = 32;
  config.mixer = {MixerConfig{.type = MixerType::Softmax}, MixerConfig{}};
  return config;
}

}  // namespace

TEST_CASE("parameters are counted by part") {
  const Decoder decoder(small_model(), 0);
  CHECK(size_of_part(decoder, "embedding") == 32 * 8);
  CHECK(size_of_part(decoder, "softmax.query") == 8 * 8 + 8);
  CHECK(size_of_part(decoder, "regla.refine") == 8 * 8 + 8);
  CHECK(size_of_part(decoder, "regla.norm") == 8);
  CHECK(size_of_part(decoder, "mlp") == 2 * (2 * 8 * 16 + 16 + 8));
  CHECK(size_of_part(decoder, "norms") == 5 * 16);
  CHECK(size_of_part(decoder, "head") == 32 * 8);
  int64_t sum = 0;
  for (const PartSize& part : parameters_by_part(decoder)) sum += part.parameters;
  CHECK(sum == parameter_count(decoder));
}

TEST_CASE("operations are those of docs/flops.md") {
  const ModelConfig config = small_model();
  const Decoder decoder(config, 0);
  const double matrices = 4 * 64 + 6 * 64 + 2 * 2 * 8 * 16 + 32 * 8;
  const double softmax = 2 * 2 * (4 + 4) * (10 + 1) / 2.0, regla = 4 * 2 * 4 * 4;
  CHECK(forward_flops_per_token(decoder, 10) == 2 * matrices + softmax + regla);
  CHECK(training_flops_per_token(decoder, 10) == 3 * (2 * matrices + softmax + regla));
  ModelConfig tied = config;
  tied.tie_embeddings = true;
  CHECK(forward_flops_per_token(Decoder(tied, 0), 10) == 2 * matrices + softmax + regla);
}

TEST_CASE("a cache grows with the text, a linear state does not") {
  ModelConfig config = small_model();
  config.mixer = {MixerConfig{}};
  const Decoder linear(config, 0);
  CHECK(state_bytes(linear, 10) == 2 * 4 * 2 * (4 * 4 + 1));
  CHECK(state_bytes(linear, 1000) == state_bytes(linear, 10));
  config.mixer = {MixerConfig{.type = MixerType::Softmax}};
  CHECK(state_bytes(Decoder(config, 0), 10) == 2 * 4 * 10 * 2 * 8);
}

TEST_CASE("the paper's softmax model has 162,322,944 parameters at its full size") {
  // Counted at 1/12 of the layers: embeddings, head and final norm once, then one block.
  ModelConfig config;
  config.layers = 1;
  config.vocab = 50304;
  config.mixer[0].type = MixerType::Softmax;
  const Decoder decoder(config, 0);
  const int64_t outside = 2 * 50304 * 768 + 2 * 768;
  CHECK(outside + 12 * (parameter_count(decoder) - outside) == 162322944);
}

}  // namespace regla
