// A model's whole life on a device whose memory nothing but kernels and Memory may touch, bit for
// bit what it is on the CPU: training, checkpoints, scores, generation.
#include <algorithm>
#include <string>
#include <vector>

#include "models/generation.h"
#include "models/inspection.h"
#include "scoring/perplexity.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/temporary_folder.h"
#include "tests/training/support.h"
#include "tests/walled_device.h"
#include "text/byte_tokenizer.h"
#include "training/checkpoint.h"
#include "training/run_folder.h"
#include "training/training_loop.h"

namespace regla::test {
namespace {

TrainingConfig walled_config(const std::string& mixer, int64_t layers = 2) {
  return full_config(mixer, Precision::Fp32, layers);
}

/// Every mixer with tensors of its own. Each carries its state in one model and not in another, and
/// so with being computed again for the backward pass; of these and of tied embeddings any two meet
/// in every way. A cache without a window and redrawn features cannot be carried.
std::vector<TrainingConfig> walled_configs() {
  const struct {
    const char* mixers;
    bool carries, recomputes, ties;
  } models[] = {{R"(["regla", {"type": "softmax", "window": 6}, "delta_net"])", true, false, false},
                {R"(["regla", "softmax", "delta_net"])", false, true, false},
                {R"(["performer", {"gate_axis": "key"}, {"type": "rfa", "feature_seed": 5}])", true,
                 true, true},
                {R"([{"type": "rfa", "redraw_every": 2}, {"gate_axis": "key"}, "performer"])",
                 false, false, true}};
  std::vector<TrainingConfig> configs;
  for (const auto& model : models) {
    configs.push_back(walled_config(model.mixers, 3));
    configs.back().carry_state = model.carries;
    configs.back().activation_checkpointing =
        model.recomputes ? ActivationCheckpointing::Blocks : ActivationCheckpointing::None;
    configs.back().model.tie_embeddings = model.ties;
  }
  return configs;
}

/// Every mixer by its name, three to a model.
std::vector<TrainingConfig> models_of_all_mixers() {
  std::vector<TrainingConfig> configs;
  const auto names = names_of(MixerType{});
  for (size_t i = 0; i < names.size(); i += 3) {
    const size_t end = std::min(names.size(), i + 3);
    std::string mixers;
    for (size_t j = i; j < end; ++j) {
      mixers += (mixers.empty() ? "\"" : ", \"") + std::string(names[j]) + "\"";
    }
    configs.push_back(walled_config("[" + mixers + "]", static_cast<int64_t>(end - i)));
    for (MixerConfig& mixer : configs.back().model.mixer) {
      if (mixer.type == MixerType::Softmax) mixer.window = 6;  // so that it can be carried
    }
  }
  return configs;
}

/// What sets a configuration apart, for messages.
std::string name_of(const TrainingConfig& config) {
  std::string name;
  for (const MixerConfig& mixer : config.model.mixer) {
    name += std::string(name_of(mixer.type)) + " ";
  }
  return name + (config.carry_state ? "carried " : "") +
         std::string(name_of(config.activation_checkpointing));
}

void check_same_weights(const Decoder& a, const Decoder& b) {
  REQUIRE(a.parameters().size() == b.parameters().size());
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    INFO(a.parameters()[i]->name);
    CHECK(same_bits(a.parameters()[i]->value, b.parameters()[i]->value));
  }
}

void check_same_step(const StepResult& a, const StepResult& b) {
  CHECK(a.loss == b.loss);
  CHECK(a.gradient_norm == b.gradient_norm);
  CHECK(a.learning_rate == b.learning_rate);
}

/// A model on a device and its training.
struct Run {
  Model model;
  TokenStream text = small_text(200);  // 6 steps per epoch
  Trainer trainer;

  Run(const TrainingConfig& config, Device device)
      : model(make_model(config, byte_tokenizer(), device)),
        trainer(model.config, *model.decoder, text, kEnd) {}
  explicit Run(Model loaded)
      : model(std::move(loaded)), trainer(model.config, *model.decoder, text, kEnd) {}
};

TrainingState state_of(const Run& run) {
  const int64_t step = run.trainer.steps_done();
  return {.step = step, .tokens = step * run.trainer.tokens_per_step(), .text = "abc"};
}

}  // namespace

TEST_CASE("training behind the wall has the CPU's bits") {
  for (const TrainingConfig& config : walled_configs()) {
    INFO(name_of(config));
    Run cpu(config, {}), walled(config, walled_device());
    check_same_weights(*walled.model.decoder, *cpu.model.decoder);
    for (int step = 0; step < 30; ++step) {  // over the borders of epochs
      check_same_step(one_step(walled.trainer), one_step(cpu.trainer));
    }
    walled.trainer.require_finite_weights();
    for (const Parameter* parameter : walled.model.decoder->parameters()) {
      CHECK(parameter->value.device() == walled_device());
      CHECK(parameter->gradient.device() == walled_device());
    }
    check_same_weights(*walled.model.decoder, *cpu.model.decoder);
  }
}

TEST_CASE("updates that are asked for ahead are those that are waited for") {
  for (const TrainingConfig& config : walled_configs()) {
    INFO(name_of(config));
    Run waits(config, walled_device()), goes_on(config, walled_device());
    const bool redraws = config.model.mixer[0].redraw_every > 0;  // every 2 updates
    StepResults expected, told;
    for (int64_t step = 0; step < 13; ++step) {
      expected.push_back(one_step(waits.trainer));
      goes_on.trainer.step();
      const StepResults arrived = goes_on.trainer.arrived();
      told.insert(told.end(), arrived.begin(), arrived.end());
      // This one is still under way, unless features are drawn anew behind it.
      CHECK(static_cast<int64_t>(told.size()) <= (redraws && step % 2 == 1 ? step + 1 : step));
      CHECK(goes_on.trainer.steps_done() == step + 1);
    }
    CHECK(told.size() >= 9);
    const StepResults rest = goes_on.trainer.finish();
    told.insert(told.end(), rest.begin(), rest.end());
    REQUIRE(told.size() == expected.size());
    for (size_t i = 0; i < told.size(); ++i) {
      CHECK(told[i].step == static_cast<int64_t>(i) + 1);
      check_same_step(told[i], expected[i]);
    }
    check_same_weights(*goes_on.model.decoder, *waits.model.decoder);
    CHECK(goes_on.trainer.finish().empty());
  }
}

TEST_CASE("between two log lines the host only brings what is new to the device") {
  std::vector<TrainingConfig> configs = walled_configs();
  for (const TrainingConfig& config : models_of_all_mixers()) configs.push_back(config);
  for (TrainingConfig& config : configs) {
    for (MixerConfig& mixer : config.model.mixer) mixer.redraw_every = 0;
    INFO(name_of(config));
    Run run(config, walled_device());
    one_step(run.trainer);
    const WallCounts outside = counts_outside_of_routines(), inside = counts_inside_routines();
    for (int step = 0; step < 13; ++step) run.trainer.step();
    const WallCounts asked = counts_outside_of_routines() - outside;
    CHECK(asked == WallCounts{.copies_from_host = 13});  // the staged blocks
    CHECK((counts_inside_routines() - inside).kernels > 13 * 40);
    CHECK((counts_inside_routines() - inside).copies_from_host == 0);
  }
}

TEST_CASE("another objective is trained for, and its numbers are told") {
  // Twice the loss, beside which the loss and a third of it are told.
  const Objective twice = {.numbers = {"once", "third"},
                           .evaluate = [](Decoder& decoder, const MicroBatch& part) {
                             const Var loss = next_token_objective().evaluate(decoder, part).loss;
                             const Tensor third = scale(loss, 1.0 / 3).value;
                             return Objective::Outcome{scale(loss, 2), {loss.value, third}};
                           }};
  const TrainingConfig config = walled_config(R"("regla")");
  Run run(config, {}), usual(config, {}), walled(config, walled_device());
  Trainer trainer(run.model.config, *run.model.decoder, run.text, kEnd, twice);
  Trainer there(walled.model.config, *walled.model.decoder, walled.text, kEnd, twice);
  for (int step = 0; step < 8; ++step) {
    const StepResult told = one_step(trainer), told_there = one_step(there);
    REQUIRE(told.numbers.size() == 2);
    CHECK(told.loss == Approx(2 * told.numbers[0]));
    CHECK(told.numbers[1] == Approx(told.numbers[0] / 3));
    if (step == 0) {
      const StepResult once = one_step(usual.trainer);
      CHECK(told.numbers[0] == once.loss);
      CHECK(told.gradient_norm == Approx(2 * once.gradient_norm));
      CHECK(once.numbers.empty());
    }
    check_same_step(told_there, told);
    CHECK(told_there.numbers == told.numbers);
  }
  check_same_weights(*walled.model.decoder, *run.model.decoder);
}

TEST_CASE("an update that goes bad is explained by its number, whatever was asked for since") {
  for (const int64_t ahead : {0, 1, 3}) {
    for (const int64_t bad : {2, 5}) {  // the one behind step 5 begins an epoch
      TrainingConfig config = walled_config(R"("regla")");
      Run sound(config, walled_device()), run(config, walled_device());
      for (int64_t step = 0; step < bad; ++step) {
        one_step(sound.trainer);
        one_step(run.trainer);
      }
      INFO("update " << bad << ", " << ahead << " behind it");
      Parameter& weight = *run.model.decoder->parameters()[5];
      const Tensor before = weight.value.clone();
      weight.value.fill(std::numeric_limits<double>::infinity());
      run.trainer.step();
      weight.value.copy_from(before);
      for (int64_t i = 0; i < ahead; ++i) run.trainer.step();
      // With the weight put back the batch is sound again: only its number says what it was.
      CHECK_THROWS_WITH(run.trainer.finish(),
                        Contains("[train] step " + std::to_string(bad + 1) + ": the loss is not"));
      CHECK(run.trainer.steps_done() == bad);
      check_same_weights(*run.model.decoder, *sound.model.decoder);
      // Nothing was carried on, and training could go on from there.
      check_same_step(one_step(run.trainer), one_step(sound.trainer));
      check_same_step(one_step(run.trainer), one_step(sound.trainer));
      check_same_weights(*run.model.decoder, *sound.model.decoder);
    }
  }
}

TEST_CASE("a checkpoint of one device goes on on another") {
  for (const TrainingConfig& config : walled_configs()) {
    INFO(name_of(config));
    TemporaryFolder folder;
    Run walled(config, walled_device());
    for (int step = 0; step < 3; ++step) walled.trainer.step();
    write_training(folder.path(), walled.model, walled.trainer, state_of(walled));
    const TrainingState state = read_training_state(folder.path());
    Run on_cpu(load_model(folder.path())), on_wall(load_model(folder.path(), walled_device()));
    CHECK(on_wall.model.decoder->device() == walled_device());
    for (Run* run : {&on_cpu, &on_wall}) restore_training(folder.path(), run->trainer, state);
    for (int step = 0; step < 2; ++step) {
      const StepResult expected = one_step(walled.trainer);
      check_same_step(one_step(on_cpu.trainer), expected);
      check_same_step(one_step(on_wall.trainer), expected);
    }
    check_same_weights(*on_cpu.model.decoder, *walled.model.decoder);
    check_same_weights(*on_wall.model.decoder, *walled.model.decoder);
  }
}

TEST_CASE("a run of the training loop is written behind the wall") {
  TrainingConfig config = walled_config(R"(["regla", {"type": "softmax", "window": 6}])");
  config.steps = 4;
  config.log_every = config.eval_every = config.checkpoint_every = 2;
  std::vector<double> losses;
  for (const Device device : {Device{}, walled_device()}) {
    TemporaryFolder folder;
    RunFolder folder_of_run = create_run(folder / "run");
    Run run(config, device);
    const TokenStream valid = small_text(90, 2);
    TrainingEvents events;
    events.on_evaluation = [&](const EvalMetrics& metrics) { losses.push_back(metrics.loss); };
    TrainingState state{.text = "abc"};
    CHECK(run_training(folder_of_run, run.model, run.trainer, &valid, state, events));
    CHECK(load_model(folder / "run", walled_device()).decoder->device() == walled_device());
  }
  REQUIRE(losses.size() == 4);
  CHECK(losses[0] == losses[2]);
  CHECK(losses[1] == losses[3]);
}

TEST_CASE("weights that diverge behind the wall are named") {
  const TrainingConfig config = walled_config(R"("regla")");
  Run run(config, walled_device());
  Parameter& weight = *run.model.decoder->parameters()[5];
  weight.value.fill(std::numeric_limits<double>::quiet_NaN());
  CHECK_THROWS_WITH(one_step(run.trainer),
                    Contains("the loss is not finite; the first tensor that"));
  CHECK_THROWS_WITH(run.trainer.require_finite_weights(), Contains(weight.name));
}

TEST_CASE("scores behind the wall are the CPU's") {
  for (const TrainingConfig& config : walled_configs()) {
    INFO(name_of(config));
    const TokenStream text = small_text(70, 3);
    for (const Context context : {Context::Window, Context::Carried}) {
      if (context == Context::Carried && !config.carry_state) continue;
      const auto score = [&](Device device) {
        const Model model = make_model(config, byte_tokenizer(), device);
        EvaluationOptions options = model.config.evaluation();
        options.context = context;
        return evaluate(*model.decoder, text, kEnd, options).nats;
      };
      CHECK(score(walled_device()) == score({}));
    }
  }
}

TEST_CASE("tokens behind the wall are the CPU's, in every form and from stored weights") {
  for (const TrainingConfig& config : walled_configs()) {
    INFO(name_of(config));
    const Model cpu = make_model(config, byte_tokenizer()),
                walled = make_model(config, byte_tokenizer(), walled_device());
    const Tensor ids = random_ids({2, 11}, 4, 257), reset = random_mask({2, 11}, 5, 0.2);
    for (const Form form : {Form::Chunked, Form::Recurrent, Form::Step}) {
      const Tensor scores = all_logits(*walled.decoder, ids, form, {.reset = reset});
      CHECK(scores.device() == walled_device());
      CHECK(same_bits(scores, all_logits(*cpu.decoder, ids, form, {.reset = reset})));
    }
    const std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7};
    GenerationOptions options;
    options.max_new_tokens = 60;  // the cache grows on the way
    for (const DType dtype : {DType::F32, DType::BF16}) {
      cpu.decoder->store_weights(dtype);
      walled.decoder->store_weights(dtype);
      const WallCounts before = counts_outside_of_routines();
      const std::vector<int32_t> tokens = generate(*walled.decoder, prompt, options);
      const WallCounts counts = counts_outside_of_routines() - before;
      CHECK(counts.copies_to_host + counts.copies_beside == options.max_new_tokens);  // the ids
      CHECK(tokens == generate(*cpu.decoder, prompt, options));
    }
    CHECK(parameter_count(*walled.decoder) == parameter_count(*cpu.decoder));
    CHECK(state_bytes(*walled.decoder, 100) == state_bytes(*cpu.decoder, 100));
  }
}

TEST_CASE("ids without an entry in the vocabulary are refused on the host") {
  const Model model = make_model(walled_config(R"("regla")"), byte_tokenizer(), walled_device());
  const std::string expected = "[decoder] expected ids from 0 to 383, got one outside that range";
  CHECK(error_of([&] { model.decoder->ids({1}, {384}); }) == expected);
  CHECK(error_of([&] { model.decoder->ids({2}, {0, -1}); }) == expected);
  CHECK(error_of([&] {
          all_logits(*model.decoder, Tensor::full({1, 2}, 400, DType::I32));
        }) == expected);
  CHECK(error_of([&] { generate(*model.decoder, std::vector<int32_t>{9999}, {}); }) == expected);
}

}  // namespace regla::test
