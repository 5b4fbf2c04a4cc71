#include "training/checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "backends/backend.h"
#include "backends/copies.h"
#include "models/mixer_json.h"
#include "storage/files.h"
#include "storage/tensor_reader.h"
#include "training/checkpoint_folder.h"
#include "training/run_folder.h"
#include "training/stage_json.h"

namespace regla {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostSteps = std::numeric_limits<int32_t>::max();  // as in a configuration
constexpr uint64_t kStateLimit = uint64_t{1} << 20;                  // bytes of state.json

constexpr std::array<std::string_view, 13> kFreeKeys = {"steps",
                                                        "activation_checkpointing",
                                                        "log_every",
                                                        "eval_every",
                                                        "eval_batches",
                                                        "eval_batch_size",
                                                        "checkpoint_every",
                                                        "keep_last",
                                                        "threads",
                                                        "device",
                                                        "precision",
                                                        "report",
                                                        "teacher"};

constexpr const char* kCarried = "state.";  // before the names of a carried state's tensors

/// Reads a file of a checkpoint that was written beside activations of some type.
class CheckpointReader {
 public:
  CheckpointReader(const fs::path& path, DType activations)
      : file_(path, "[checkpoint]", " by config.json"), activations_(activations) {}

  TensorReader& file() { return file_; }

  /// Fills a tensor, whose shape the file's must have, and whose type it had when the file was
  /// written.
  void read_into(const std::string& name, Tensor& tensor) {
    const DType stored = tensor.dtype() == DType::I32 ? DType::I32 : stored_type(name);
    if (stored == tensor.dtype()) {
      file_.take_into(name, tensor);
    } else {
      tensor.copy_from(converted(file_.take(name, tensor.shape(), stored), tensor.dtype()));
    }
  }

  void finish() const { file_.finish("this model"); }

 private:
  /// Of numbers: cached keys and values are activations, everything else is sums.
  DType stored_type(const std::string& name) const {
    return file_.type_of(name) == activations_ ? activations_ : sum_type(activations_);
  }

  TensorReader file_;
  DType activations_;
};

/// Fills a cache [B, window - 1, H, N] with the entries of a file. Earlier versions saved no more
/// of them than there were tokens.
void read_cache(CheckpointReader& reader, const std::string& name, int64_t tokens, Tensor& cache) {
  const Shape& shape = cache.shape();
  const Shape shorter = {shape[0], std::min(tokens, shape[1]), shape[2], shape[3]};
  if (!reader.file().has(name, shorter)) return reader.read_into(name, cache);
  Tensor entries = Tensor::empty(shorter, cache.dtype(), cache.device());
  reader.read_into(name, entries);
  copy_rows(entries, 0, shorter[1], cache, shape[1] - shorter[1]);
}

/// Fills a state from a file of this or an earlier version, whose layers had a clock and a first
/// entry of the cache each.
void read_carried(CheckpointReader& reader, const std::string& where, int64_t tokens,
                  DecoderState& state) {
  const auto of_layer = [](size_t layer, const char* name) {
    return kCarried + std::to_string(layer) + "." + name;
  };
  const bool has_clocks = !reader.file().has(kCarried + std::string("position")) &&
                          reader.file().has(of_layer(0, "position"));
  state.for_each([&](const std::string& name, Tensor& tensor) {
    const bool is_cache = name.ends_with(".keys") || name.ends_with(".values");
    if (is_cache) return read_cache(reader, kCarried + name, tokens, tensor);
    reader.read_into(has_clocks && name == "position" ? of_layer(0, "position") : kCarried + name,
                     tensor);
  });
  for (size_t layer = 0; layer < state.layers.size(); ++layer) {
    reader.file().pass_over(of_layer(layer, "first"));  // which follows from the positions
    if (!has_clocks || layer == 0) continue;
    Tensor position = Tensor::empty_like(state.position);
    reader.read_into(of_layer(layer, "position"), position);
    check(position.values() == state.position.values(), where, ": expected the position of layer ",
          layer, " to be that of layer 0");
  }
}

/// The step in the name of a run's checkpoint; a copy may have any name.
std::optional<int64_t> step_of_folder(const fs::path& folder) {
  std::error_code error;
  const fs::path path = fs::canonical(folder, error);
  if (error || path.parent_path().filename() != "checkpoints") return std::nullopt;
  return step_named(path.filename().string());
}

/// An Error unless the numbers of a state belong together.
void check_state(const TrainingState& state, const fs::path& folder, const std::string& where) {
  check(state.step >= 0 && state.step <= kMostSteps, where, "expected a step from 0 to ",
        kMostSteps, ", got ", state.step);
  const int64_t named = step_of_folder(folder).value_or(state.step);
  check(state.step == named, where, "expected the step ", named, " of its folder, got ",
        state.step);
  check(state.tokens >= 0, where, "expected tokens of at least 0, got ", state.tokens);
  check(state.elapsed_s >= 0 && std::isfinite(state.elapsed_s), where,
        "expected elapsed_s of at least 0, got ", state.elapsed_s);
  for (const auto& [name, step] : {std::pair("best_step", state.best_step),
                                   std::pair("evaluated_step", state.evaluated_step)}) {
    check(step >= -1 && step <= state.step, where, "expected ", name, " from -1 to the step ",
          state.step, ", got ", step);
  }
  check(std::isfinite(state.best_loss), where, "expected a finite best_loss, got ",
        state.best_loss);
}

void check_vocab(int64_t vocab, const Tokenizer& tokenizer) {
  check(vocab >= tokenizer.vocab_size(), "[config] expected a vocab of at least the ",
        tokenizer.vocab_size(), " entries of the tokenizer, got ", vocab);
}

Model assembled(const TrainingConfig& config, std::unique_ptr<Tokenizer> tokenizer,
                const ParameterFactory& make) {
  Model model{config.resolved(), std::move(tokenizer), nullptr};
  int64_t& vocab = model.config.model.vocab;
  if (vocab == 0) vocab = padded_vocab(model.tokenizer->vocab_size());
  check_vocab(vocab, *model.tokenizer);
  allow_tf32(make.device(), config.precision == Precision::Tf32);
  model.decoder = std::make_unique<Decoder>(model.config.model, make);
  return model;
}

/// Whether a key may have another value than the run's when that goes on.
bool may_change(const std::string& key, bool is_begun) {
  if (std::find(kFreeKeys.begin(), kFreeKeys.end(), key) != kFreeKeys.end()) return true;
  if (is_begun || key == "tokenizer" || key == "vocab_size") return false;
  if (key == "dropout" || key == "sequence_length") return true;
  bool is_of_model = false;
  const ModelConfig model;
  fields(model, [&](const char* name, const auto&, const char*) {
    is_of_model = is_of_model || key == name || key.starts_with(name + std::string("."));
  });
  return !is_of_model;
}

}  // namespace

Model make_model(const TrainingConfig& config, std::unique_ptr<Tokenizer> tokenizer,
                 Device device) {
  return assembled(config, std::move(tokenizer),
                   {config.seed, activation_type(config.precision), device});
}

Model load_model(const fs::path& run, Device device, std::optional<Precision> precision) {
  const HeldCheckpoint held(run);
  const fs::path& folder = held.path();
  TrainingConfig config = read_config(folder / "config.json", {}, NamedBy::Program);
  auto tokenizer = load_tokenizer((folder / "tokenizer.json").string());
  const DType activations = activation_type(config.precision);
  CheckpointReader reader(folder / "model.safetensors", activations);
  // Made of the tensors that are there: a configuration that asks for more is refused before
  // anything is made for it.
  const auto take = [&](const std::string& name, const Shape& shape, DType) {
    return reader.file().take(name, shape, sum_type(activations));
  };
  config.precision = precision.value_or(config.precision);
  Model model =
      assembled(config, std::move(tokenizer), {take, activation_type(config.precision), device});
  reader.finish();
  // Random features that are drawn again follow from the number of updates.
  if (fs::exists(folder / "state.json")) {
    model.decoder->begin_step(read_training_state(folder).step);
  }
  return model;
}

Model model_of(TrainingConfig config, std::unique_ptr<Tokenizer> tokenizer,
               std::unique_ptr<Decoder> decoder) {
  check_vocab(decoder->config().vocab, *tokenizer);
  config.model = decoder->config();
  return {config.resolved(), std::move(tokenizer), std::move(decoder)};
}

void write_model(const fs::path& folder, const Model& model) {
  std::vector<NamedTensor> weights;
  for (const Parameter* parameter : model.decoder->parameters()) {
    weights.push_back({parameter->name, parameter->value});
  }
  write_file(folder / "config.json", model.config.to_json());
  write_file(folder / "tokenizer.json", model.tokenizer->to_json());
  write_safetensors(folder / "model.safetensors", weights, {{"format", "regla"}});
}

void create_run_of(const fs::path& path, const Model& model) {
  RunFolder run = create_run(path);
  const TrainingState state{.seed = model.config.seed, .text = ""};
  const auto write = [&](const fs::path& folder) {
    write_model(folder, model);
    write_safetensors(folder / "optimizer.safetensors", {}, {{"format", "regla"}});
    write_state(folder, state);
  };
  save_checkpoint(run, state.step, write, false);
}

void write_training(const fs::path& folder, const Model& model, Trainer& trainer,
                    const TrainingState& state) {
  std::vector<NamedTensor> rest;
  trainer.optimizer().for_each([&](const std::string& name, Tensor& moment) {
    if (trainer.steps_done() > 0) rest.push_back({name, moment});  // before, all are 0
  });
  DecoderState carried = trainer.carried_state();
  carried.for_each([&](const std::string& name, Tensor& tensor) {
    rest.push_back({kCarried + name, tensor});
  });
  write_model(folder, model);
  write_safetensors(folder / "optimizer.safetensors", rest, {{"format", "regla"}});
  write_state(folder, state);
}

void write_state(const fs::path& folder, const TrainingState& state) {
  write_file(folder / "state.json", dumped(write_fields(state), 2) + "\n");
}

TrainingState read_training_state(const fs::path& folder) {
  const fs::path path = folder / "state.json";
  const std::string where = "[checkpoint] " + path.string() + ": ";
  const Json json = parse_json(read_file(path, kStateLimit), "[checkpoint] " + path.string() + ":");
  TrainingState state;
  check(json.is_object() && json.contains("version"), where, "expected a version");
  check(json["version"] == state.version, where, "expected the format's version ", state.version,
        ", got ", shown(json["version"]));
  fields(state, [&](const char* name, const auto&, const char*) {
    check(json.contains(name), where, "expected the key ", name);
  });
  read_fields(json, "", state);
  check_state(state, folder, where);
  return state;
}

void restore_training(const fs::path& folder, Trainer& trainer, const TrainingState& state) {
  check(trainer.tokens_after(state.step) == state.tokens, "[checkpoint] ",
        (folder / "state.json").string(), ": expected ", state.step, " steps of ",
        trainer.tokens_per_step(), " tokens each, got ", state.tokens, " tokens");
  const fs::path path = folder / "optimizer.safetensors";
  const DType activations =
      activation_type(read_config(folder / "config.json", {}, NamedBy::Program).precision);
  CheckpointReader reader(path, activations);
  trainer.optimizer().for_each([&](const std::string& name, Tensor& moment) {
    state.step > 0 ? reader.read_into(name, moment)
                   : reader.file().pass_over(name);  // there they are 0
  });
  DecoderState carried = trainer.initial_state();
  const std::string where = "[checkpoint] " + path.string();
  const int64_t carried_tokens = trainer.tokens_carried(state.step);
  read_carried(reader, where, carried_tokens, carried);
  carried.check_values(where, carried_tokens);
  reader.finish();
  trainer.resume(state.step, carried);
}

std::vector<std::string> changed_keys(const TrainingConfig& run, const TrainingConfig& config,
                                      bool is_begun) {
  // Flat, so that a key inside a mixer has its own name.
  const Json before = write_fields(run.resolved()).flatten();
  const Json after = write_fields(config.resolved()).flatten();
  std::vector<std::string> keys;
  const auto compare = [&](const Json& from, const Json& with) {
    for (const auto& item : from.items()) {
      std::string key = item.key().substr(1);
      std::replace(key.begin(), key.end(), '/', '.');
      const bool is_free = may_change(key, is_begun);
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
