#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "text/batches.h"
#include "text/token_cache.h"
#include "training/configuration.h"
#include "training/optimizer.h"

namespace regla {

/// The batch of one update as tensors [B, T] I32.
struct BatchTensors {
  Tensor ids, targets;
  Tensor reset;  // undefined: nothing is forgotten on the way

  /// Rows [begin, end), sharing memory.
  BatchTensors rows(int64_t begin, int64_t end) const;
};

/// A loss or gradient that is not finite: the one failure that is nobody's wrong input.
class DivergedError : public Error {
 public:
  using Error::Error;
};

/// What one update did.
struct StepResult {
  double loss = 0;           ///< mean over the batch, nats per token
  double gradient_norm = 0;  ///< global, before clipping
  double learning_rate = 0;
};

/// Trains a decoder: one `step` is one batch, its gradient and one update. Everything random
/// follows from (seed, step) and the data from the step alone, so weights, moments, the number of
/// steps and the carried state are all there is to resume from. Results do not depend on threads.
class Trainer {
 public:
  /// `decoder` must outlive it. Errors: those of TrainingConfig::validate and Batches.
  Trainer(const TrainingConfig& config, Decoder& decoder, const TokenStream& text,
          int32_t end_of_text);

  /// One update. A loss or gradient norm that is not finite is a DivergedError that names the step,
  /// the part of the model and the first tensor that went bad; the weights are as before then.
  StepResult step();

  /// A DivergedError that names a weight which the last update made infinite or NaN, if there is
  /// one: before a checkpoint is written over a good one.
  void require_finite_weights() const;

  int64_t steps_done() const { return steps_done_; }
  int64_t tokens_per_step() const { return config_.batch_size * config_.model.sequence_length; }
  /// M of text/batches.h: updates per pass over the text.
  int64_t steps_per_epoch() const { return batches_.segments(); }
  Decoder& decoder() { return decoder_; }
  AdamW& optimizer() { return optimizer_; }

  /// The state carried between segments, of the whole batch; empty without `carry_state`.
  const DecoderState& carried_state() const { return carried_; }
  /// What the first update of an epoch starts from, the tensors of which `carried_state` always
  /// has; empty without `carry_state`.
  DecoderState initial_state() const;
  /// The tokens of each sequence that the state after `steps` updates comes from.
  int64_t tokens_carried(int64_t steps) const;
  /// Goes on after `steps` updates from a state as `carried_state` gave it.
  void resume(int64_t steps, const DecoderState& carried);

 private:
  BatchTensors tensors_of(const Batch& batch) const;
  DecoderState rows_of(const DecoderState& state, int64_t index) const;
  Tensor run_micro_batch(const BatchTensors& batch, int64_t index, DecoderState& state,
                         bool check_finite);
  void commit(const std::vector<DecoderState>& after);
  [[noreturn]] void explain(const BatchTensors& batch, const DecoderState& before, double loss);

  TrainingConfig config_;
  Decoder& decoder_;
  TokenStream text_;
  Batches batches_;
  AdamW optimizer_;
  int64_t steps_done_ = 0;
  DecoderState carried_;  // empty without carry_state
};

}  // namespace regla
