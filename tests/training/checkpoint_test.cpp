#include "training/checkpoint.h"

#include <algorithm>
#include <functional>

#include "backends/copies.h"
#include "storage/files.h"
#include "storage/safetensors.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"
#include "tests/training/saved_training.h"
#include "text/byte_tokenizer.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

TrainingConfig config_of(const std::string& text) {
  TrainingConfig config = from_json(text);
  config.tokenizer = "byte";
  return config;
}

const char* const kSmall = R"({"layers": 2, "hidden": 16, "heads": 2, "mlp": 24, "batch_size": 4,
    "sequence_length": 8, "carry_state": true, "reset_at_documents": true, "micro_batches": 2,
    "mixer": ["regla", {"type": "softmax", "window": 12}]})";

/// A training of two steps, saved in a folder.
struct Saved {
  TemporaryFolder folder;
  Model model = make_model(config_of(kSmall), byte_tokenizer());
  TokenStream text = test::small_text(300);
  Trainer trainer{model.config, *model.decoder, text, test::kEnd};
  TrainingState state{.step = 2, .tokens = 64, .elapsed_s = 0.1, .text = "abc"};

  Saved() {
    trainer.step();
    trainer.step();
    write_training(folder.path(), model, trainer, state);
  }
  /// Changes the tensors of a file.
  void edit(const std::string& file, const std::function<void(std::vector<NamedTensor>&)>& f) {
    std::vector<NamedTensor> tensors = read_safetensors(folder / file).tensors;
    f(tensors);
    write_safetensors(folder / file, tensors);
  }
  std::string load_error() {
    try {
      load_model(folder.path());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string restore_error() {
    try {
      Model loaded = load_model(folder.path());
      Trainer fresh(loaded.config, *loaded.decoder, text, test::kEnd);
      restore_training(folder.path(), fresh, read_training_state(folder.path()));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

void replace_in_file(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = read_file(path);
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  write_file(path, text.replace(at, from.size(), to));
}

}  // namespace

TEST_CASE("a checkpoint brings back everything") {
  Saved saved;
  Model loaded = load_model(saved.folder.path());
  CHECK(loaded.config == saved.model.config);
  CHECK(loaded.config.model.vocab == 384);  // 257 entries, padded
  CHECK(loaded.tokenizer->to_json() == saved.model.tokenizer->to_json());
  Trainer again(loaded.config, *loaded.decoder, saved.text, test::kEnd);
  const TrainingState state = read_training_state(saved.folder.path());
  CHECK(state.step == 2);
  CHECK(state.elapsed_s == 0.1);
  CHECK(state.text == "abc");
  restore_training(saved.folder.path(), again, state);
  for (int step = 0; step < 3; ++step) {
    const StepResult a = test::one_step(saved.trainer), b = test::one_step(again);
    CHECK(a.loss == b.loss);
    CHECK(a.gradient_norm == b.gradient_norm);
  }
}

TEST_CASE("weights that do not fit the configuration are named") {
  Saved saved;
  const auto message_after = [&](const std::function<void(std::vector<NamedTensor>&)>& f) {
    const std::string before = read_file(saved.folder / "model.safetensors");
    saved.edit("model.safetensors", f);
    const std::string message = saved.load_error();
    write_file(saved.folder / "model.safetensors", before);
    return message;
  };
  const std::string first = saved.model.decoder->parameters()[0]->name;
  CHECK_THAT(message_after([](auto& tensors) { tensors.erase(tensors.begin()); }),
             Contains("\"" + first + "\": missing"));
  CHECK_THAT(message_after([](auto& tensors) {
               tensors.push_back({"intruder", Tensor::zeros({1}, DType::F32)});
             }),
             Contains("\"intruder\": is no part of this model"));
  CHECK_THAT(message_after([](auto& tensors) {
               tensors[0].tensor = Tensor::zeros({384, 17}, DType::F32);
             }),
             Contains("\"" + first + "\": expected the shape [384, 16]"));
  CHECK_THAT(message_after([](auto& tensors) {
               tensors[0].tensor = converted(tensors[0].tensor, DType::F64);
             }),
             Contains("expected F32 by config.json, got F64"));
  CHECK(saved.load_error() == "no error");
}

TEST_CASE("a configuration that disagrees with the weights is an error") {
  Saved saved;
  replace_in_file(saved.folder / "config.json", "\"hidden\": 16", "\"hidden\": 32");
  CHECK_THAT(saved.load_error(), Contains("by config.json"));
  replace_in_file(saved.folder / "config.json", "\"hidden\": 32", "\"hidden\": 16");
  replace_in_file(saved.folder / "config.json", "\"vocab\": 384", "\"vocab\": 128");
  CHECK_THAT(saved.load_error(), Contains("257 entries"));
}

TEST_CASE("moments and carried states are checked too") {
  Saved saved;
  CHECK(saved.restore_error() == "no error");
  const std::string before = read_file(saved.folder / "optimizer.safetensors");
  for (const std::string name : {"m.embed_in.weight", "state.0.S", "state.position"}) {
    saved.edit("optimizer.safetensors", [&](auto& tensors) {
      std::erase_if(tensors, [&](const NamedTensor& entry) { return entry.name == name; });
    });
    CHECK_THAT(saved.restore_error(), Contains("\"" + name + "\": missing"));
    write_file(saved.folder / "optimizer.safetensors", before);
  }
  saved.edit("optimizer.safetensors", [](auto& tensors) {
    tensors.push_back({"state.7.S", Tensor::zeros({1}, DType::F32)});
  });
  CHECK_THAT(saved.restore_error(), Contains("\"state.7.S\": is no part"));
}

TEST_CASE("a run of an earlier version, with a clock in every layer, goes on") {
  Saved saved;
  const std::string file = "optimizer.safetensors", before = read_file(saved.folder / file);
  const auto clocks = [&](const std::vector<int32_t>& first, const std::vector<int32_t>& second) {
    write_file(saved.folder / file, before);
    saved.edit(file, [&](auto& tensors) {
      std::erase_if(tensors,
                    [](const NamedTensor& entry) { return entry.name == "state.position"; });
      if (!first.empty()) tensors.push_back({"state.0.position", Tensor::of({4}, first)});
      if (!second.empty()) tensors.push_back({"state.1.position", Tensor::of({4}, second)});
    });
  };
  std::vector<int32_t> positions;
  for (const double p : saved.trainer.carried_state().position.values()) {
    positions.push_back(static_cast<int32_t>(p));
  }
  CHECK(*std::min_element(positions.begin(), positions.end()) < 16);  // documents begin on the way
  clocks(positions, positions);
  Model loaded = load_model(saved.folder.path());
  Trainer again(loaded.config, *loaded.decoder, saved.text, test::kEnd);
  restore_training(saved.folder.path(), again, saved.state);
  CHECK(again.carried_state().position.values() == saved.trainer.carried_state().position.values());
  for (int step = 0; step < 3; ++step) {
    const StepResult a = test::one_step(saved.trainer), b = test::one_step(again);
    CHECK(a.loss == b.loss);
    CHECK(a.gradient_norm == b.gradient_norm);
  }
  std::vector<int32_t> other = positions;
  other[2] += 1;
  clocks(positions, other);
  CHECK_THAT(saved.restore_error(),
             Contains("expected the position of layer 1 to be that of layer 0"));
  clocks(positions, {});
  CHECK_THAT(saved.restore_error(), Contains("\"state.1.position\": missing"));
  clocks({}, positions);
  CHECK_THAT(saved.restore_error(), Contains("\"state.position\": missing"));
}

TEST_CASE("a run of an earlier version, with as many entries of a window as tokens, goes on") {
  TrainingConfig config = config_of(kSmall);
  config.model.mixer[1].window = 31;  // 16 tokens leave 16 entries of 30
  TemporaryFolder folder;
  const Model model = make_model(config, byte_tokenizer());
  const TokenStream text = test::small_text(300);
  Trainer trainer(model.config, *model.decoder, text, test::kEnd);
  trainer.step();
  trainer.step();
  const TrainingState state = {.step = 2, .tokens = 64, .text = ""};
  write_training(folder.path(), model, trainer, state);
  std::vector<NamedTensor> tensors = read_safetensors(folder / "optimizer.safetensors").tensors;
  for (auto& [name, tensor] : tensors) {
    if (!name.ends_with(".keys") && !name.ends_with(".values")) continue;
    REQUIRE(tensor.shape() == Shape{4, 30, 2, 8});
    const NoGrad guard;
    tensor = last(tensor, 16).value;
  }
  write_safetensors(folder / "optimizer.safetensors", tensors);
  Model loaded = load_model(folder.path());
  Trainer again(loaded.config, *loaded.decoder, text, test::kEnd);
  restore_training(folder.path(), again, state);
  for (int step = 0; step < 3; ++step) {
    const StepResult a = test::one_step(trainer), b = test::one_step(again);
    CHECK(a.loss == b.loss);
    CHECK(a.gradient_norm == b.gradient_norm);
  }
}

TEST_CASE("before the first update a checkpoint has no moments, and a training goes on from it") {
  const TemporaryFolder folder;
  test::Training whole(config_of(kSmall));
  whole.save(folder);
  for (const NamedTensor& entry : read_safetensors(folder / "optimizer.safetensors").tensors) {
    CHECK(entry.name.starts_with("state."));
  }
  test::Training begun(folder);
  for (int step = 0; step < 3; ++step) {
    const StepResult a = test::one_step(whole.trainer), b = test::one_step(begun.trainer);
    CHECK(a.loss == b.loss);
    CHECK(a.gradient_norm == b.gradient_norm);
  }
}

TEST_CASE("a state of another version or with missing keys is an error") {
  Saved saved;
  replace_in_file(saved.folder / "state.json", "\"version\": 1", "\"version\": 2");
  CHECK_THROWS_WITH(read_training_state(saved.folder.path()), Contains("version 1, got 2"));
  write_file(saved.folder / "state.json", R"({"version": 1, "step": 3})");
  CHECK_THROWS_WITH(read_training_state(saved.folder.path()), Contains("expected the key seed"));
  write_file(saved.folder / "state.json", "{");
  CHECK_THROWS_WITH(read_training_state(saved.folder.path()), Contains("state.json"));
}

TEST_CASE("what changed in a configuration is named, except what may change") {
  const TrainingConfig run = config_of(kSmall);
  TrainingConfig other = run;
  other.steps = 7;
  other.eval_every = other.checkpoint_every = other.log_every = 3;
  other.threads = 2;
  other.activation_checkpointing = ActivationCheckpointing::Blocks;
  CHECK(changed_keys(run, other).empty());
  other.learning_rate = 1;
  other.model.mixer[0].gate_axis = GateAxis::Key;
  CHECK(changed_keys(run, other) == std::vector<std::string>{"learning_rate", "mixer.0.gate_axis"});
  // Before the first training only what the weights and the tokenizer are counts.
  other.model.sequence_length = 7;
  other.model.dropout = 0.3;
  other.model.layer_norm_epsilon = 1e-6;
  other.seed = 4;
  other.tokenizer = "other.json";
  CHECK(changed_keys(run, other, false) ==
        std::vector<std::string>{"tokenizer", "mixer.0.gate_axis", "layer_norm_epsilon"});
}

}  // namespace regla
