// Training in BF16: masters, moments and states in F32, activations and products in BF16.

#include <cmath>

#include "storage/files.h"
#include "storage/safetensors.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/training/saved_training.h"

namespace regla::test {
namespace {

TrainingConfig config_of(const std::string& mixer, Precision precision) {
  TrainingConfig config = full_config(mixer, precision);
  config.model.dropout = 0.1;
  return config;
}

}  // namespace

TEST_CASE("training in BF16 goes as in F32") {
  for (const std::string& mixer : small_mixers()) {
    INFO(mixer);
    Training exact(config_of(mixer, Precision::Fp32)), rounded(config_of(mixer, Precision::Bf16));
    CHECK(std::abs(rounded.steps(1) / exact.steps(1) - 1) < 1e-3);
    const double wanted = exact.steps(29), loss = rounded.steps(29);
    CHECK(wanted < 4);
    CHECK(std::abs(loss / wanted - 1) < 1e-2);
  }
}

TEST_CASE("training in BF16 resumes with the same bits") {
  for (const std::string& mixer : small_mixers()) {
    INFO(mixer);
    Training training(config_of(mixer, Precision::Bf16));
    training.steps(4);
    const TemporaryFolder folder;
    training.save(folder);
    Training again(folder);
    for (const Parameter* parameter : again.model.decoder->parameters()) {
      CHECK(parameter->value.dtype() == DType::F32);
      CHECK(parameter->copy.defined() == is_operand(parameter->role));
    }
    training.steps(4);
    again.steps(4);
    const ParameterList& a = training.model.decoder->parameters();
    const ParameterList& b = again.model.decoder->parameters();
    for (size_t i = 0; i < a.size(); ++i) {
      INFO(a[i]->name);
      CHECK(same_bits(a[i]->value, b[i]->value));
      CHECK(same_bits(a[i]->copy, b[i]->copy));
      if (a[i]->copy) CHECK(same_bits(a[i]->copy, converted(a[i]->value, DType::BF16)));
    }
  }
}

TEST_CASE("a checkpoint of BF16 holds sums in F32 and cached keys in BF16") {
  Training training(config_of(R"([{"type": "softmax", "window": 6}, "regla"])", Precision::Bf16));
  training.steps(2);
  const TemporaryFolder folder;
  training.save(folder);
  CHECK_THAT(read_file(folder / "config.json"), Contains(R"("precision": "bf16")"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    for (const NamedTensor& tensor : read_safetensors(folder / file).tensors) {
      INFO(tensor.name);
      const bool is_cache = tensor.name.ends_with(".keys") || tensor.name.ends_with(".values");
      if (tensor.name.ends_with("position")) continue;
      CHECK(tensor.tensor.dtype() == (is_cache ? DType::BF16 : DType::F32));
    }
  }
}

TEST_CASE("a run goes on in another precision") {
  const std::string mixer = R"([{"type": "softmax", "window": 6}, "regla"])";
  for (const Precision before : {Precision::Fp32, Precision::Bf16, Precision::F64}) {
    Training training(config_of(mixer, before));
    training.steps(5);
    const TemporaryFolder folder;
    training.save(folder);
    const double wanted = training.steps(1);
    for (const Precision now :
         {Precision::Fp32, Precision::Tf32, Precision::Bf16, Precision::F64}) {
      INFO(name_of(before) << " to " << name_of(now));
      Training again(folder, now);
      CHECK(again.model.config.precision == now);
      CHECK(again.model.decoder->dtype() == activation_type(now));
      CHECK(std::abs(again.steps(1) / wanted - 1) < 5e-3);
    }
  }
}

}  // namespace regla::test
