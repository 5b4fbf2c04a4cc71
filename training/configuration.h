#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "models/configuration.h"
#include "scoring/perplexity.h"
#include "storage/files.h"

namespace regla {

enum class Schedule : uint8_t { Constant, Linear, Cosine };
constexpr std::array<std::string_view, 3> names_of(Schedule) {
  return {"constant", "linear", "cosine"};
}

/// What a model computes in. Tf32 is Fp32 but for products on a GPU, whose operands have 10 bits of
/// mantissa there.
enum class Precision : uint8_t { Fp32, Tf32, Bf16, F64 };
constexpr std::array<std::string_view, 4> names_of(Precision) {
  return {"fp32", "tf32", "bf16", "f64"};
}
/// What an update keeps of its forward pass for backward: every value that it needs; all but those
/// that are a pass over the elements of others; or the input of each block alone. What was not kept
/// is computed again, with the same bits.
enum class ActivationCheckpointing : uint8_t { None, Cheap, Blocks };
constexpr std::array<std::string_view, 3> names_of(ActivationCheckpointing) {
  return {"none", "cheap", "blocks"};
}
/// The type of activations (A in backends/kernels.h); weights and moments are kept in
/// `sum_type` of it.
constexpr DType activation_type(Precision precision) {
  return precision == Precision::F64    ? DType::F64
         : precision == Precision::Bf16 ? DType::BF16
                                        : DType::F32;
}

/// Everything a training run is made of. In JSON its keys and the model's stand side by side.
/// The defaults are the paper's where it names a value.
struct TrainingConfig {
  ModelConfig model;
  int64_t steps = 50000;
  int64_t batch_size = 8;
  int64_t micro_batches = 1;
  double learning_rate = 2e-4;
  Schedule schedule = Schedule::Constant;
  int64_t warmup_steps = 0;
  double final_learning_rate = 0.1;
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double grad_clip = 1.0;
  bool carry_state = false;
  bool reset_at_documents = false;
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::Cheap;
  std::string text;
  std::string tokenizer = "bpe";
  int64_t vocab_size = 8192;
  int64_t log_every = 10;
  int64_t eval_every = 1000;
  int64_t eval_batches = 0;
  int64_t eval_batch_size = 0;
  int64_t checkpoint_every = 1000;
  int64_t keep_last = 2;
  bool report = false;
  uint64_t seed = 0;
  int64_t threads = 0;
  std::string device = "cpu";
  Precision precision = Precision::Fp32;

  /// How a split is scored when nothing else is asked for: as training reads it.
  EvaluationOptions evaluation() const;
  /// With the defaults that depend on other keys written out.
  TrainingConfig resolved() const;
  /// An Error naming the key unless every value makes sense.
  void validate() const;
  /// Every key, resolved, as indented JSON: the config.json of a run.
  std::string to_json() const;

  bool operator==(const TrainingConfig&) const = default;
};

/// Calls `visit(name, member, meaning)` for every key of the flat JSON, in the order they are
/// written: training first, then the model.
template <class Config, class Visitor>
requires std::same_as<std::remove_const_t<Config>, TrainingConfig>
void fields(Config& c, Visitor&& visit) {
  visit("steps", c.steps, "updates of the weights; 0 writes the initial checkpoint");
  visit("batch_size", c.batch_size, "B, sequences per update");
  visit("micro_batches", c.micro_batches,
        "parts the batch is split into along B, one after the other; divides batch_size");
  visit("learning_rate", c.learning_rate, "highest learning rate");
  visit("schedule", c.schedule,
        "course of the learning rate after the warm-up. With p = (n - warmup_steps) / (steps - "
        "warmup_steps) at update n, counted from 0, and e = final_learning_rate, learning_rate is "
        "multiplied by 1, by 1 - (1 - e) p, or by e + (1 - e) (1 + cos(π p)) / 2");
  visit("warmup_steps", c.warmup_steps,
        "updates over which the learning rate rises from 0: update n has (n + 1) / warmup_steps of "
        "it");
  visit("final_learning_rate", c.final_learning_rate,
        "what linear and cosine end at, as a fraction of learning_rate: the update after the last "
        "would have it, so another number of steps bends the whole course");
  visit("weight_decay", c.weight_decay,
        "decoupled decay (AdamW), not on biases, norms and embed_in");
  visit("beta1", c.beta1, "decay of Adam's first moment");
  visit("beta2", c.beta2, "decay of Adam's second moment");
  visit("epsilon", c.epsilon, "added to the root of Adam's second moment");
  visit("grad_clip", c.grad_clip, "largest global norm of the gradient; 0: no clipping");
  visit("carry_state", c.carry_state,
        "a segment starts from the state that the one before it left (truncated "
        "back-propagation), not from an empty one");
  visit("reset_at_documents", c.reset_at_documents, "clear the state at the end of each document");
  visit("activation_checkpointing", c.activation_checkpointing,
        "what the backward pass computes again instead of having it kept, with the same results: "
        "none is fastest on a GPU; cheap, what norms, GELU and gates give; blocks, all but the "
        "input of each block, for about a quarter more time");
  visit("text", c.text,
        "kind of split files where there are several: tokens, raw or txt; empty: train's");
  visit("tokenizer", c.tokenizer,
        "byte, bpe (trained on the train split), or the path of a tokenizer.json");
  visit("vocab_size", c.vocab_size, "entries of the tokenizer with tokenizer = bpe");
  visit("log_every", c.log_every, "updates between lines of metrics");
  visit("eval_every", c.eval_every, "updates between validations; 0: only at the end");
  visit("eval_batches", c.eval_batches, "batches of a periodic validation; 0: the whole split");
  visit("eval_batch_size", c.eval_batch_size, "sequences per batch there; 0: batch_size");
  visit("checkpoint_every", c.checkpoint_every, "updates between checkpoints; 0: only at the end");
  visit("keep_last", c.keep_last, "newest checkpoints to keep, besides the best by validation");
  visit("report", c.report,
        "note what the gates do at each validation, and write report.html into the run's folder at "
        "the end");
  visit("seed", c.seed, "of initial weights and dropout");
  visit("threads", c.threads, "CPU threads; 0: all. Results do not depend on it");
  visit("device", c.device, "where training computes: cpu, cuda or cuda:<index>");
  visit("precision", c.precision,
        "what activations are and products read: tf32 is fp32 but on a GPU; with bf16 weights, "
        "moments, states and all sums stay in F32");
  fields(c.model, visit);
}

/// Reads the flat JSON; keys that are absent keep their defaults. Malformed JSON (with the
/// position), keys that are unknown (with the nearest known one) or given twice, wrong types and
/// values that make no sense are Errors.
TrainingConfig from_json(std::string_view text);

/// The configuration text with one `key=value` set, where the key may be a path: `mixer=softmax`,
/// `mixer.gate_axis=key`, `mixer.0.window=64`. A key inside a list of mixers without an index is
/// set in all of them. The value is JSON where it parses as such, else a string.
std::string apply_override(std::string_view text, std::string_view assignment);

/// The keys of a configuration file as such assignments, in their order: it may leave out whatever
/// another configuration says.
std::vector<std::string> assignments_in(const std::filesystem::path& path);

/// Reads a configuration file, then sets the overrides in order.
TrainingConfig read_config(const std::filesystem::path& path,
                           std::span<const std::string> overrides = {},
                           NamedBy named_by = NamedBy::User);

/// Every key with its type, default and meaning, as a Markdown table.
std::string describe_config();

}  // namespace regla
