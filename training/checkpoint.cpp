#include "training/checkpoint.h"

#include <algorithm>
#include <array>
#include <map>

#include "core/files.h"
#include "models/json_fields.h"
#include "models/safetensors.h"
#include "training/run_folder.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 9> kFreeKeys = {
    "steps",           "activation_checkpointing", "log_every", "eval_every", "eval_batches",
    "eval_batch_size", "checkpoint_every",         "keep_last", "threads"};

std::string carried_name(size_t layer, const std::string& tensor) {
  return "state." + std::to_string(layer) + "." + tensor;
}

/// Hands out a file's tensors by name and knows which were not asked for.
class TensorReader {
 public:
  explicit TensorReader(const fs::path& path) : path_(path) {
    for (NamedTensor& entry : read_safetensors(path).tensors) {
      tensors_.emplace(std::move(entry.name), std::move(entry.tensor));
    }
  }

  /// Copies a tensor into one of the same shape and type.
  void read_into(const std::string& name, Tensor& tensor) {
    const Tensor found = take(name);
    check(found.shape() == tensor.shape(), where(name), " expected the shape ", tensor.shape(),
          " by config.json, got ", found.shape());
    check(found.dtype() == tensor.dtype(), where(name), " expected ", name_of(tensor.dtype()),
          " by config.json, got ", name_of(found.dtype()));
    tensor.copy_from(found);
  }

  Tensor take(const std::string& name) {
    const auto found = tensors_.find(name);
    check(found != tensors_.end(), where(name), " missing");
    const Tensor tensor = found->second;
    tensors_.erase(found);
    return tensor;
  }

  bool has(const std::string& name) const { return tensors_.contains(name); }

  /// An Error when a tensor is left.
  void finish() const {
    if (!tensors_.empty()) fail(where(tensors_.begin()->first), " is no part of this model");
  }

 private:
  std::string where(const std::string& name) const {
    return "[checkpoint] " + path_.string() + ", tensor " + regla::quoted(name) + ":";
  }

  fs::path path_;
  std::map<std::string, Tensor> tensors_;
};

void read_weights(const fs::path& path, Decoder& decoder) {
  TensorReader file(path);
  for (Parameter* parameter : decoder.parameters()) {
    file.read_into(parameter->name, parameter->value);
  }
  file.finish();
}

/// One layer's carried state over an empty one. What grows with the text is there only once there
/// was text.
void read_carried(TensorReader& file, size_t layer, MixerState& state) {
  state.for_each([&](const std::string& name, Tensor& tensor) {
    file.read_into(carried_name(layer, name), tensor);
  });
  for (const char* name : {"keys", "values", "first"}) {
    const std::string full = carried_name(layer, name);
    if (file.has(full)) state.set(name, file.take(full));
  }
}

}  // namespace

Model make_model(const TrainingConfig& config, std::unique_ptr<Tokenizer> tokenizer) {
  Model model{config.resolved(), std::move(tokenizer), nullptr};
  int64_t& vocab = model.config.model.vocab;
  if (vocab == 0) vocab = padded_vocab(model.tokenizer->vocab_size());
  check(vocab >= model.tokenizer->vocab_size(), "[config] expected a vocab of at least the ",
        model.tokenizer->vocab_size(), " entries of the tokenizer, got ", vocab);
  model.decoder =
      std::make_unique<Decoder>(model.config.model, model.config.seed, model.config.element_type());
  return model;
}

Model load_model(const fs::path& run) {
  const fs::path folder = checkpoint_of(run);
  Model model = make_model(read_config(folder / "config.json"),
                           load_tokenizer((folder / "tokenizer.json").string()));
  read_weights(folder / "model.safetensors", *model.decoder);
  // Random features that are drawn again follow from the number of updates.
  if (fs::exists(folder / "state.json")) {
    model.decoder->begin_step(read_training_state(folder).step);
  }
  return model;
}

void write_training(const fs::path& folder, const Model& model, Trainer& trainer,
                    const TrainingState& state) {
  std::vector<NamedTensor> weights, rest;
  for (const Parameter* parameter : model.decoder->parameters()) {
    weights.push_back({parameter->name, parameter->value});
  }
  trainer.optimizer().for_each([&](const std::string& name, Tensor& moment) {
    rest.push_back({name, moment});
  });
  DecoderState carried = trainer.carried_state();
  for (size_t layer = 0; layer < carried.size(); ++layer) {
    carried[layer].for_each([&](const std::string& name, Tensor& tensor) {
      rest.push_back({carried_name(layer, name), tensor});
    });
  }
  write_file(folder / "config.json", model.config.to_json());
  write_file(folder / "tokenizer.json", model.tokenizer->to_json());
  write_safetensors(folder / "model.safetensors", weights, {{"format", "regla"}});
  write_safetensors(folder / "optimizer.safetensors", rest, {{"format", "regla"}});
  write_file(folder / "state.json", dumped(write_fields(state), 2) + "\n");
}

TrainingState read_training_state(const fs::path& folder) {
  const fs::path path = folder / "state.json";
  const Json json = parse_json(read_file(path), "[checkpoint] " + path.string() + ":");
  TrainingState state;
  const std::string where = "[checkpoint] " + path.string() + ": ";
  check(json.is_object() && json.contains("version"), where, "expected a version");
  check(json["version"] == state.version, where, "expected the format's version ", state.version,
        ", got ", shown(json["version"]));
  fields(state, [&](const char* name, const auto&, const char*) {
    check(json.contains(name), where, "expected the key ", name);
  });
  read_fields(json, "", state);
  check(state.step >= 0, where, "expected a step of at least 0, got ", state.step);
  return state;
}

void restore_training(const fs::path& folder, Trainer& trainer, const TrainingState& state) {
  TensorReader file(folder / "optimizer.safetensors");
  trainer.optimizer().for_each(
      [&](const std::string& name, Tensor& moment) { file.read_into(name, moment); });
  DecoderState carried = trainer.carried_state();
  for (size_t layer = 0; layer < carried.size(); ++layer) {
    read_carried(file, layer, carried[layer]);
  }
  file.finish();
  trainer.resume(state.step, carried);
}

std::vector<std::string> changed_keys(const TrainingConfig& run, const TrainingConfig& config) {
  // Flat, so that a key inside a mixer has its own name.
  const Json before = write_fields(run.resolved()).flatten();
  const Json after = write_fields(config.resolved()).flatten();
  std::vector<std::string> keys;
  const auto compare = [&](const Json& from, const Json& with) {
    for (const auto& item : from.items()) {
      std::string key = item.key().substr(1);
      std::replace(key.begin(), key.end(), '/', '.');
      const bool is_free = std::find(kFreeKeys.begin(), kFreeKeys.end(), key) != kFreeKeys.end();
      const bool is_known = std::find(keys.begin(), keys.end(), key) != keys.end();
      const auto other = with.find(item.key());
      const bool is_same = other != with.end() && *other == item.value();
      if (!is_free && !is_known && !is_same) keys.push_back(key);
    }
  };
  compare(before, after);
  compare(after, before);
  return keys;
}

}  // namespace regla
