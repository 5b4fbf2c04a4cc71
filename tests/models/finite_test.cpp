#include "models/finite.h"

#include <bit>
#include <cmath>
#include <iterator>

#include "models/generation.h"
#include "tests/matchers.h"
#include "tests/support.h"

// A weight that is NaN is found out by every way of using a decoder.
namespace regla::test {
namespace {

/// Quiet, with the sign bit set, and with nothing but the lowest bit of the payload.
constexpr uint32_t kNans[] = {0x7fc00000, 0xffc00000, 0x7f800001};

std::vector<MixerConfig> mixers() {
  std::vector<MixerConfig> all;
  for (size_t type = 0; type < names_of(MixerType{}).size(); ++type) {
    all.push_back(preset(static_cast<MixerType>(type)));
  }
  for (MixerConfig& changes : std::vector<MixerConfig>(3)) all.push_back(changes);
  all[all.size() - 3].sum_norm = true;
  all[all.size() - 3].write_gate = true;
  all[all.size() - 3].gate_axis = GateAxis::Key;
  all[all.size() - 2].feature_map = FeatureMap::Lse;
  all[all.size() - 2].output_gate = OutputGate::Swish;
  all[all.size() - 1].gate_axis = GateAxis::Both;
  all[all.size() - 1].key_max = KeyMax::Token;
  return all;
}

Decoder small_decoder(const MixerConfig& mixer) {
  ModelConfig config;
  config.layers = 1;
  config.hidden = 12;
  config.heads = 2;
  config.mlp = 20;
  config.vocab = 5;
  config.sequence_length = 9;
  config.mixer = {mixer};
  return Decoder(config, 3);
}

/// Each id occurs, so that every row of the embedding is used.
Tensor ids() {
  return Tensor::of({2, 7}, std::vector<int32_t>{0, 3, 1, 4, 2, 2, 0, 4, 1, 3, 0, 2, 1, 4});
}

/// Fails unless every form of the decoder says that `name` is not finite, or is NaN.
void check_found(Decoder& decoder, const std::string& name) {
  const auto blames = Contains("not finite, nor is the weight " + name);
  for (const Form form : {Form::Chunked, Form::Recurrent, Form::Step}) {
    CHECK_THAT(error_of([&] { all_logits(decoder, ids(), form); }), blames);
  }
  const NoGrad guard;
  double sum = 0;
  for (const double loss : decoder.losses(decoder.hidden(ids()), ids()).values()) sum += loss;
  CHECK(std::isnan(sum));
  const std::vector<int32_t> prompt = {3, 1, 0, 4, 2};
  for (const double temperature : {0, 1}) {
    const GenerationOptions options = {.sampling = {.temperature = temperature}, .vocab = 4};
    CHECK_THAT(error_of([&] { generate(decoder, prompt, options); }), blames);
  }
}

}  // namespace

TEST_CASE("one NaN in any weight of any mixer is found") {
  size_t changes = 0;
  for (const MixerConfig& mixer : mixers()) {
    Decoder decoder = small_decoder(mixer);
    for (Parameter* parameter : decoder.parameters()) {
      const Tensor sound = parameter->value;
      for (const int64_t place : {int64_t{0}, sound.numel() - 1}) {
        const uint32_t bits = kNans[++changes % std::size(kNans)];
        INFO(name_of(mixer.type) << ", " << parameter->name << " at " << place << ", " << std::hex
                                 << bits);
        parameter->value = sound.clone();
        parameter->value.data<float>()[place] = std::bit_cast<float>(bits);
        check_found(decoder, parameter->name);
      }
      parameter->value = sound;
    }
  }
}

TEST_CASE("one NaN in weights stored in BF16 is found") {
  for (const uint32_t bits : kNans) {
    Decoder decoder = small_decoder({});
    Parameter& output = *decoder.parameters().back();
    output.value.data<float>()[7] = std::bit_cast<float>(bits);
    decoder.store_weights(DType::BF16);
    REQUIRE(output.value.dtype() == DType::BF16);
    check_found(decoder, "embed_out.weight");
  }
}

TEST_CASE("finite weights that are too large are told from weights that are not finite") {
  Decoder decoder = small_decoder({});
  decoder.parameters().back()->value.fill(3e38);
  CHECK_THAT(error_of([&] { all_logits(decoder, ids()); }),
             Contains("not finite, though every weight is"));
}

TEST_CASE("a weight that takes no part may be anything") {
  Decoder decoder = small_decoder({});
  const Tensor three = Tensor::of({1, 3}, std::vector<int32_t>{0, 1, 2});
  const Tensor expected = all_logits(decoder, three);
  Tensor embedding = decoder.parameters().front()->value;
  embedding.slice(3, 5).fill(std::nan(""));
  CHECK(same_bits(all_logits(decoder, three), expected));
}

}  // namespace regla::test
