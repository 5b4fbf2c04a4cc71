#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "models/decoder.h"
#include "text/tokenizer.h"
#include "training/configuration.h"
#include "training/trainer.h"

namespace regla {

/// What state.json holds: where a training stands besides its tensors. Random numbers follow from
/// (seed, step) and the place in the data from the step.
struct TrainingState {
  int64_t version = 1;  ///< of the checkpoint's format
  int64_t step = 0;     ///< updates done
  uint64_t seed = 0;
  int64_t tokens = 0;           ///< trained on so far
  double elapsed_s = 0;         ///< seconds of training
  int64_t best_step = -1;       ///< of the best validation so far; -1: none yet
  double best_loss = 0;         ///< its loss
  int64_t evaluated_step = -1;  ///< of the last validation that came to its end
  std::string text;             ///< fingerprint of the training tokens; empty: none yet

  /// Whether a training wrote it: not that of a run that was made of weights from elsewhere.
  bool is_begun() const { return step > 0 || !text.empty(); }
};

template <class State, class Visitor>
requires std::same_as<std::remove_const_t<State>, TrainingState>
void fields(State& s, Visitor&& visit) {
  visit("version", s.version, "of the checkpoint's format");
  visit("step", s.step, "updates done");
  visit("seed", s.seed, "of initial weights and dropout");
  visit("tokens", s.tokens, "trained on so far");
  visit("elapsed_s", s.elapsed_s, "seconds of training");
  visit("best_step", s.best_step, "of the best validation so far; -1: none");
  visit("best_loss", s.best_loss, "its loss");
  visit("evaluated_step", s.evaluated_step, "of the last validation; -1: none");
  visit("text", s.text, "fingerprint of the training tokens");
}

/// A trained model as it is used: everything but what only training needs.
struct Model {
  TrainingConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Decoder> decoder;
};

/// The model for a configuration and a tokenizer, with initial weights, on an open device. A
/// `vocab` of 0 becomes the tokenizer's, padded; an Error when the tokenizer has more entries than
/// `vocab`. The device's products are in TF32 from now on if `precision` says so, and exact if not:
/// the model that was made last decides.
Model make_model(const TrainingConfig& config, std::unique_ptr<Tokenizer> tokenizer,
                 Device device = {});

/// Reads config.json, tokenizer.json and model.safetensors of a run, or of a folder that holds
/// them, onto an open device, to compute in `precision` (undefined: as configured). Tensors that
/// are missing, surplus, of another shape or type than the configuration says are Errors that name
/// the tensor.
Model load_model(const std::filesystem::path& run, Device device = {},
                 std::optional<Precision> precision = {});

/// The model of a decoder that was made elsewhere, whose configuration `config` takes on. An Error
/// when the tokenizer has more entries than its `vocab`.
Model model_of(TrainingConfig config, std::unique_ptr<Tokenizer> tokenizer,
               std::unique_ptr<Decoder> decoder);

/// Writes config.json, tokenizer.json and model.safetensors into a folder, in this order; that is
/// all that `load_model` reads.
void write_model(const std::filesystem::path& folder, const Model& model);

/// Makes a run of a model from elsewhere. Its one checkpoint, of step 0, is what a training begins
/// from that goes on with the run. Errors are those of create_run and save_checkpoint.
void create_run_of(const std::filesystem::path& path, const Model& model);

/// Writes all files of a checkpoint into a folder (training/run_folder.h makes them a whole):
/// weights under the names of their parameters, moments as `m.<name>` and `v.<name>`, a carried
/// state as `state.<layer>.<tensor>` and `state.position`. All are in the type of sums, but for
/// cached keys and values, which are activations.
void write_training(const std::filesystem::path& folder, const Model& model, Trainer& trainer,
                    const TrainingState& state);

/// Writes state.json alone.
void write_state(const std::filesystem::path& folder, const TrainingState& state);

/// Reads state.json.
TrainingState read_training_state(const std::filesystem::path& folder);

/// Brings a fresh trainer to where the checkpoint in `folder` stands; the weights are those of
/// `load_model`. Errors as there.
void restore_training(const std::filesystem::path& folder, Trainer& trainer,
                      const TrainingState& state);

/// The keys whose values differ between a run and a configuration to go on with, except those that
/// may change: steps, logging, validation, checkpoints, report, threads, device, precision and
/// activation_checkpointing; before the first training all but the tokenizer and what the weights
/// belong to, the model without `dropout` and `sequence_length`.
std::vector<std::string> changed_keys(const TrainingConfig& run, const TrainingConfig& config,
                                      bool is_begun = true);

}  // namespace regla
