#include "core/memory.h"

#include <algorithm>

#include "tests/catch.h"
#include "tests/support.h"
#include "tests/training/support.h"
#include "training/trainer.h"

// What training holds, and that holding less changes nothing.
namespace regla::test {
namespace {

std::vector<std::string> mixers() {
  std::vector<std::string> all = small_mixers();
  all.insert(all.end(), {R"([{"type": "delta_net"}, {"type": "softmax", "window": 5}])",
                         R"({"type": "regla", "gate_axis": "both", "key_max": "running"})"});
  return all;
}

constexpr std::array kCheckpointings = {
    ActivationCheckpointing::None, ActivationCheckpointing::Cheap, ActivationCheckpointing::Blocks};

/// Large enough that its activations take more than one segment of a heap.
TrainingConfig large_config(const std::string& mixer, int64_t layers) {
  TrainingConfig config = small_config(mixer);
  config.precision = Precision::Fp32;
  config.model.layers = layers;
  config.model.hidden = 64;
  config.model.mlp = 256;
  config.model.vocab = 200;
  config.model.sequence_length = 128;
  config.model.dropout = 0.1;
  config.batch_size = 16;
  config.carry_state = true;
  return config;
}

/// Bytes in use at most during the second of two steps.
int64_t peak_of_step(const TrainingConfig& config) {
  const TokenStream text = small_text(20000);
  Decoder decoder(config.model, 3);
  Trainer trainer(config, decoder, text, kEnd);
  trainer.step();
  memory({}).reset_peak();
  trainer.step();
  return memory({}).stats().peak_bytes_in_use;
}

void check_same_training(Trainer& a, Trainer& b) {
  for (size_t i = 0; i < a.decoder().parameters().size(); ++i) {
    const Parameter &p = *a.decoder().parameters()[i], &q = *b.decoder().parameters()[i];
    INFO(p.name);
    CHECK(same_bits(p.gradient, q.gradient));
    CHECK(same_bits(p.value, q.value));
  }
  DecoderState x = a.carried_state(), y = b.carried_state();
  std::vector<std::pair<std::string, Tensor>> values;
  x.for_each([&](const std::string& name, Tensor& value) { values.emplace_back(name, value); });
  size_t next = 0;
  y.for_each([&](const std::string& name, Tensor& value) {
    REQUIRE(next < values.size());
    CHECK(values[next].first == name);
    CHECK(same_bits(values[next++].second, value));
  });
  CHECK(next == values.size());
}

}  // namespace

TEST_CASE("after the first step training takes no more memory from the system") {
  for (const char* mixer : {R"("regla")", R"({"type": "softmax", "window": 100})"}) {
    for (const auto again : kCheckpointings) {
      TrainingConfig config = large_config(mixer, 4);
      config.activation_checkpointing = again;
      memory({}).trim();
      const TokenStream text = small_text(20000);
      Decoder decoder(config.model, 3);
      Trainer trainer(config, decoder, text, kEnd);
      trainer.step();
      // A cache of keys and values is full after one segment: the second step sees it first.
      if (config.model.mixer[0].type == MixerType::Softmax) trainer.step();
      const MemoryStats first = memory({}).stats();
      for (int step = 0; step < 4; ++step) trainer.step();
      const MemoryStats last = memory({}).stats();
      INFO(mixer << ", activation_checkpointing " << name_of(again));
      CHECK(last.system_calls == first.system_calls);
      CHECK(last.system_bytes == first.system_bytes);
      CHECK(last.bytes_in_use == first.bytes_in_use);
      CHECK(last.bytes_requested > first.bytes_requested);
    }
  }
}

TEST_CASE("a step holds gradients and activations one after the other") {
  // Weights and moments stay. Of the rest, a gradient comes only where activations went.
  TrainingConfig config = large_config(R"("regla")", 4);
  const TokenStream text = small_text(20000);
  Decoder decoder(config.model, 3);
  const int64_t before = memory({}).stats().bytes_in_use;
  {
    Trainer trainer(config, decoder, text, kEnd);
    trainer.step();
    const int64_t rows = config.batch_size * config.model.sequence_length;
    // Per layer, in units of [B, T, D]: x, q, k, v, two gates, the states, o, x again and the MLP's
    // 4; per token and head little more. Norms, F and what GELU gives are computed again: of one
    // block at a time, the most where its MLP's 4 + 4 stand beside their gradients.
    const int64_t activations = (4 * 13 + 4 + 4 + 4) * rows * config.model.hidden * 4;
    memory({}).reset_peak();
    trainer.step();
    int64_t weights = 0;
    for (const Parameter* parameter : decoder.parameters()) weights += parameter->value.bytes();
    const int64_t peak = memory({}).stats().peak_bytes_in_use - before;
    CHECK(peak < 2 * weights + activations + activations / 10);
  }
}

TEST_CASE("activation checkpointing changes no bit of training") {
  for (const std::string& mixer : mixers()) {
    for (const char* dtype : {"f64", "f32"}) {
      TrainingConfig config = small_config(mixer);
      config.precision = dtype == std::string("f64") ? Precision::F64 : Precision::Fp32;
      config.model.dropout = 0.2;
      config.model.parallel_residual = dtype == std::string("f32");
      config.carry_state = config.reset_at_documents = true;
      config.micro_batches = 2;
      const TokenStream text = small_text(200);  // an epoch ends at the sixth step
      const auto decoder = [&] {
        return Decoder(config.model, 3, activation_type(config.precision));
      };
      Decoder kept = decoder(), fewer = decoder(), again = decoder();
      config.activation_checkpointing = ActivationCheckpointing::None;
      Trainer a(config, kept, text, kEnd);
      config.activation_checkpointing = ActivationCheckpointing::Cheap;
      Trainer b(config, fewer, text, kEnd);
      config.activation_checkpointing = ActivationCheckpointing::Blocks;
      Trainer c(config, again, text, kEnd);
      INFO(mixer << ", " << dtype);
      for (int step = 0; step < 8; ++step) {
        const StepResult x = one_step(a), y = one_step(b), z = one_step(c);
        CHECK((x.loss == y.loss && x.loss == z.loss));
        CHECK((x.gradient_norm == y.gradient_norm && x.gradient_norm == z.gradient_norm));
      }
      check_same_training(a, b);
      check_same_training(a, c);
    }
  }
}

TEST_CASE("a run may go on with activation checkpointing") {
  TrainingConfig config = small_config(R"([{"type": "softmax", "window": 11}, "regla"])");
  config.model.dropout = 0.1;
  config.carry_state = true;
  const TokenStream text = small_text(500);
  Decoder straight(config.model, 3, DType::F64), first(config.model, 3, DType::F64);
  Trainer a(config, straight, text, kEnd), b(config, first, text, kEnd);
  for (int step = 0; step < 5; ++step) a.step();
  for (int step = 0; step < 2; ++step) b.step();
  config.activation_checkpointing = ActivationCheckpointing::Blocks;
  Trainer c(config, first, text, kEnd);
  std::vector<Tensor> moments;
  b.optimizer().for_each([&](const std::string&, Tensor& t) { moments.push_back(t); });
  size_t next = 0;
  c.optimizer().for_each([&](const std::string&, Tensor& t) { t.copy_from(moments[next++]); });
  c.resume(b.steps_done(), b.carried_state());
  for (int step = 2; step < 5; ++step) c.step();
  check_same_training(a, c);
}

TEST_CASE("activation checkpointing holds less, of blocks one block's activations") {
  for (const char* mixer : {R"("regla")", R"({"type": "softmax", "window": 100})"}) {
    TrainingConfig config = large_config(mixer, 8);
    std::array<int64_t, 3> peaks{};
    for (size_t i = 0; i < peaks.size(); ++i) {
      config.activation_checkpointing = kCheckpointings[i];
      peaks[i] = peak_of_step(config);
    }
    const auto [all, some, blocks] = peaks;
    INFO(mixer << ": " << all << ", " << some << " and " << blocks << " bytes");
    CHECK(some < 0.85 * static_cast<double>(all));
    CHECK(blocks < some / 2);
  }
}

TEST_CASE("a loss that is not finite is explained under activation checkpointing too") {
  TrainingConfig config = small_config(R"("regla")");
  config.activation_checkpointing = ActivationCheckpointing::Blocks;
  const TokenStream text = small_text(200);
  Decoder decoder(config.model, 3, DType::F64);
  Trainer trainer(config, decoder, text, kEnd);
  for (Parameter* parameter : decoder.parameters()) {
    if (parameter->name == "layers.1.mlp.in.bias") parameter->value.fill(INFINITY);
  }
  const std::string message = error_of([&] { one_step(trainer); });
  CHECK(message.find("output of `linear` in layers.1.mlp") != std::string::npos);
}

}  // namespace regla::test
