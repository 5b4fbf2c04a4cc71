#include <cmath>

#include "models/decoder.h"
#include "models/generation.h"
#include "tests/bfloat16.h"
#include "tests/matchers.h"
#include "tests/support.h"

// Decoders whose matrices are stored in BF16 for inference.
namespace regla::test {
namespace {

ModelConfig small_model(const MixerConfig& mixer, bool tied) {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 24;
  config.heads = 2;
  config.mlp = 40;
  config.vocab = 37;
  config.mixer = {mixer};
  config.tie_embeddings = tied;
  config.sequence_length = 16;
  return config;
}

std::vector<ModelConfig> models() {
  MixerConfig hedgehog;  // with matrices per head, which stay as they are
  hedgehog.feature_map = FeatureMap::Hedgehog;
  return {small_model({}, false), small_model({}, true), small_model(hedgehog, false),
          small_model({.type = MixerType::Softmax}, false),
          small_model(preset(MixerType::DeltaNet), true)};
}

/// The same with its matrices rounded to BF16 but kept in F32.
void round_weights(const Decoder& decoder) {
  for (Parameter* parameter : decoder.parameters()) {
    const bool is_head = decoder.config().tie_embeddings && parameter->name == "embed_in.weight";
    if (parameter->role != Role::Matrix && !is_head) continue;
    parameter->value = converted(converted(parameter->value, DType::BF16), DType::F32);
  }
}

}  // namespace

TEST_CASE("a decoder with weights in BF16 computes what the rounded weights give") {
  for (const ModelConfig& config : models()) {
    Decoder stored(config, 1), rounded(config, 1);
    stored.store_weights(DType::BF16);
    round_weights(rounded);
    const Tensor ids = random_ids({2, 13}, 3, 37), targets = random_ids({2, 13}, 4, 37);
    for (const Form form : {Form::Chunked, Form::Step}) {
      const Tensor logits = all_logits(stored, ids, form);
      CHECK(logits.dtype() == DType::F32);
      CHECK(relative_error(logits, all_logits(rounded, ids, form)) < 1e-6);
    }
    CHECK(relative_error(stored.losses(stored.hidden(ids), targets),
                         rounded.losses(rounded.hidden(ids), targets)) < 1e-6);
    Decoder exact(config, 1);
    CHECK(relative_error(all_logits(stored, ids), all_logits(exact, ids)) < 0.03);
    CHECK_FALSE(same_bits(all_logits(stored, ids), all_logits(exact, ids)));
  }
}

TEST_CASE("what is stored in BF16 are the matrices that tokens are multiplied with") {
  Decoder decoder(small_model({}, false), 1);
  decoder.store_weights(DType::BF16);
  for (const Parameter* parameter : decoder.parameters()) {
    const std::string& name = parameter->name;
    const bool is_matrix = name.ends_with(".weight") && name.find("norm") == std::string::npos &&
                           name != "embed_in.weight";
    CAPTURE(name);
    CHECK((parameter->role == Role::Matrix) == is_matrix);
    CHECK(parameter->value.dtype() == (is_matrix ? DType::BF16 : DType::F32));
  }
  decoder.store_weights(DType::F32);
  for (const Parameter* parameter : decoder.parameters()) {
    CHECK(parameter->value.dtype() == DType::F32);
  }
}

TEST_CASE("a decoder in BF16 infers from the copies alone") {
  for (const ModelConfig& config : models()) {
    Decoder decoder(config, 1, DType::BF16);
    const Tensor ids = random_ids({2, 13}, 3, 37), targets = random_ids({2, 13}, 4, 37);
    const auto losses = [&] { return decoder.losses(decoder.hidden(ids), targets); };
    const Tensor logits = all_logits(decoder, ids), before = losses();
    CHECK(logits.dtype() == DType::F32);
    decoder.store_weights(DType::BF16);
    for (const Parameter* parameter : decoder.parameters()) {
      CHECK(parameter->copy.defined() == (parameter->role == Role::Bias));
      const bool is_narrow =
          is_matrix(parameter->role) || (config.tie_embeddings && parameter->role == Role::Table);
      CHECK(parameter->value.dtype() == (is_narrow ? DType::BF16 : DType::F32));
    }
    // A tied embedding is looked up in the copy, too.
    const double bound = config.tie_embeddings ? 2e-2 : 0;
    CHECK(relative_error(all_logits(decoder, ids), logits) <= bound);
    CHECK(relative_error(losses(), before) <= bound);
    CHECK_THROWS_WITH(decoder.store_weights(DType::F32), Contains("beside BF16"));
  }
}

TEST_CASE("the logits of a decoder in BF16 are close to those in F32") {
  for (const ModelConfig& config : models()) {
    Decoder rounded(config, 1, DType::BF16), exact(config, 1);
    const Tensor ids = random_ids({2, 13}, 3, 37);
    for (const Form form : {Form::Chunked, Form::Step}) {
      check_rounded(all_logits(rounded, ids, form), all_logits(exact, ids, form), 1e-2);
    }
  }
}

TEST_CASE("weights in BF16 cannot be trained, and doubles not be stored so") {
  for (const ModelConfig& config : models()) {
    Decoder decoder(config, 1);
    decoder.store_weights(DType::BF16);
    const Tape tape;
    CHECK_THROWS_WITH(decoder.hidden(random_ids({1, 4}, 1, 37)),
                      Contains("BF16 are for inference"));
  }
  Decoder decoder(small_model({}, false), 1);
  CHECK_THROWS_WITH(decoder.store_weights(DType::I32), Contains("[decoder]"));
  CHECK_THROWS_WITH(decoder.store_weights(DType::F64), Contains("[decoder]"));
  Decoder exact(small_model({}, false), 1, DType::F64);
  CHECK_THROWS_WITH(exact.store_weights(DType::BF16), Contains("beside F64"));
}

}  // namespace regla::test
