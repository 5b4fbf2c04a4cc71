#include "analyses/gate_history.h"

#include "tests/analyses/support.h"
#include "tests/catch.h"
#include "tests/matchers.h"
#include "text/byte_tokenizer.h"

namespace regla::test {

TEST_CASE("a sample is spread over the text and as long as the text allows") {
  const TokenStream text = some_tokens(101);
  const TextSample sample = sample_text(text, 256, 4, 10);
  CHECK(sample.ids.shape() == Shape{4, 10});
  CHECK(!sample.reset.defined());
  CHECK(sample.ids.data<int32_t>()[10] == text.ids()[20]);  // streams of 2 segments
  CHECK(sample_text(text, 256, 99, 10, true).reset.shape() == Shape{10, 10});
  CHECK_THAT(error_of([&] { sample_text(text, 256, 4, 101); }), Contains("more than batch 1"));
  CHECK_THAT(error_of([&] { sample_text(text, 256, 0, 8); }), Contains("sequences"));
}

TEST_CASE("gates start at their bias and training moves them") {
  const TokenStream text = some_tokens(200);
  const Model model = make_model(with_gates(tiny_config(1, 8), Gate::Sigmoid, 6), byte_tokenizer());
  const TextSample sample = sample_text(text, 256, 4, 8);
  int64_t steps = 0;
  const GateHistory history =
      train_gates(model, text, sample, [&](int64_t done, int64_t) { steps = done; });
  CHECK(steps == 8);
  CHECK(history.loss > 0);
  const GateStatistics before = all_layers(history.before).gates,
                       after = all_layers(history.after).gates;
  CHECK(before.high == before.count);
  CHECK(before.sum != after.sum);
  // The initial weights of a trained model are made again from its seed.
  CHECK(all_layers(gates_of_run(model, sample).before).gates.sum == before.sum);
  CHECK(all_layers(gates_of_run(model, sample).after).gates.sum == after.sum);
}

TEST_CASE("only gated mixers get gates") {
  TrainingConfig config = tiny_config(1, 8);
  config.model.mixer = {MixerConfig{}, MixerConfig{.type = MixerType::Softmax}};
  const TrainingConfig changed = with_gates(config, Gate::Sigmoid, -3);
  CHECK(changed.model.mixer[0].gate == Gate::Sigmoid);
  CHECK(changed.model.mixer[0].gate_bias == -3);
  CHECK(changed.model.mixer[1] == config.model.mixer[1]);
  config.model.mixer = {preset(MixerType::LinearElu)};
  CHECK_THAT(error_of([&] { with_gates(config, Gate::Refined, 0); }), Contains("gated mixer"));
  CHECK_THAT(error_of([&] { with_gates(tiny_config(1, 8), Gate::Refined, INFINITY); }),
             Contains("finite bias"));
}

}  // namespace regla::test
