#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "backends/routine.h"
#include "models/decoder.h"
#include "text/batches.h"
#include "text/token_cache.h"
#include "training/configuration.h"
#include "training/objective.h"
#include "training/optimizer.h"
#include "training/staged_update.h"

namespace regla {

/// A loss or gradient that is not finite: the one failure that is nobody's wrong input.
class DivergedError : public Error {
 public:
  using Error::Error;
};

/// What one update did.
struct StepResult {
  int64_t step = 0;          ///< its number, counted from 1
  double loss = 0;           ///< mean over the batch, nats per token
  double gradient_norm = 0;  ///< global, before clipping
  double learning_rate = 0;
  std::vector<double> numbers = {};  ///< what Objective::numbers names
};

using StepResults = std::vector<StepResult>;

/// What others did before a trainer's first update.
struct Done {
  int64_t updates = 0, tokens = 0;
};

/// Trains a decoder: one `step` is one batch, its gradient and one update. Everything random
/// follows from (seed, step) and the data from the step alone, so weights, moments, the number of
/// steps and the carried state are all there is to resume from. Results do not depend on threads.
///
/// An update is a routine (backends/routine.h): the host asks for it and goes on. What it did is
/// told by `arrived` or `finish`, in the order of the updates; on the CPU right behind `step`.
///
/// A loss or gradient norm that is not finite is a DivergedError, from whichever call comes to know
/// of it first. It names the step, the part of the model and the first tensor that went bad; the
/// weights are those before that update then, whatever was asked for since.
class Trainer {
 public:
  /// `decoder` must outlive it. `config` has one stage, which follows what is `done` and goes on in
  /// the text behind that. Errors: those of TrainingConfig::validate and Batches.
  Trainer(const TrainingConfig& config, Decoder& decoder, const TokenStream& text,
          int32_t end_of_text, Objective objective = next_token_objective(), Done done = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Asks for one update. Waits, and reads nothing, where the device is four behind; reads what the
  /// oldest did where 64 were not told of.
  void step();
  /// What updates did that were not told of yet: all of them, waiting; or those that are done.
  StepResults finish();
  StepResults arrived();

  /// A DivergedError that names a weight which the last update made infinite or NaN, if there is
  /// one: before a checkpoint is written over a good one.
  void require_finite_weights() const;

  /// Updates asked for.
  int64_t steps_done() const { return steps_done_; }
  int64_t tokens_per_step() const { return config_.batch_size * config_.model.sequence_length; }
  /// Tokens of so many updates, those that others did before included; -1 where they are too many.
  int64_t tokens_after(int64_t steps) const {
    int64_t tokens = 0;
    const bool is_huge =
        __builtin_mul_overflow(steps - done_.updates, tokens_per_step(), &tokens) ||
        __builtin_add_overflow(tokens, done_.tokens, &tokens);
    return is_huge ? -1 : tokens;
  }
  /// Updates before and with its last.
  int64_t last_step() const { return done_.updates + config_.steps; }
  const Objective& objective() const { return objective_; }
  /// Floating-point operations per token.
  double flops_per_token() const {
    return objective_.flops_per_token(decoder_, config_.model.sequence_length);
  }
  /// M of text/batches.h: updates per pass over the text.
  int64_t steps_per_epoch() const { return batches_.segments(); }
  Decoder& decoder() { return decoder_; }
  AdamW& optimizer() { return optimizer_; }

  /// The state carried between segments, of the whole batch, after `finish`; empty without
  /// `carry_state`.
  const DecoderState& carried_state() const { return carried_; }
  /// What the first update of an epoch starts from, the tensors of which `carried_state` always
  /// has; empty without `carry_state`.
  DecoderState initial_state() const;
  /// The tokens of each sequence that the state after `steps` updates comes from.
  int64_t tokens_carried(int64_t steps) const;
  /// Goes on after `steps` updates from a state as `carried_state` gave it.
  void resume(int64_t steps, const DecoderState& carried);

 private:
  /// An update that was asked for.
  struct Asked {
    int64_t step;  // updates before it
    double learning_rate;
    int64_t mark;
  };

  /// The batch of the update that follows `steps`, its place counted from the text's beginning.
  int64_t batch_after(int64_t steps) const {
    return done_.tokens / tokens_per_step() + steps - done_.updates;
  }
  double rate_after(int64_t steps) const;
  void stage(int64_t step);
  void update();
  DecoderState carried_rows(int64_t index) const;
  Objective::Outcome run_micro_batch(int64_t index, DecoderState& state, bool check_finite);
  void take_oldest();
  [[noreturn]] void explain(const Asked& asked, double loss);

  TrainingConfig config_;
  Decoder& decoder_;
  TokenStream text_;
  Batches batches_;
  AdamW optimizer_;
  Objective objective_;
  Done done_;
  StagedUpdate staged_;
  Tensor reports_;  // [kUntold, .] F64: loss, norm, factor and numbers of the latest updates
  int64_t steps_done_;
  DecoderState carried_;  // empty without carry_state
  std::deque<Asked> asked_;
  StepResults results_;  // not told yet
  std::optional<Routine> update_;
};

}  // namespace regla
