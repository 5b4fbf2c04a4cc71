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

  /// The state carried between segments, all rows of the batch together; empty without
  /// `carry_state`.
  DecoderState carried_state() const;
  /// A state with the tensors that `carried_state` gives after `steps` updates, to be read into;
  /// empty without `carry_state`.
  DecoderState carried_after(int64_t steps) const;
  /// The tokens of each sequence that the state after `steps` updates comes from.
  int64_t tokens_carried(int64_t steps) const;
  /// Goes on after `steps` updates from a state as `carried_state` gave it.
  void resume(int64_t steps, const DecoderState& carried);

 private:
  Tensor run_micro_batch(const Batch& batch, int64_t index, bool check_finite);
  [[noreturn]] void explain(const Batch& batch, double loss);

  TrainingConfig config_;
  Decoder& decoder_;
  TokenStream text_;
  Batches batches_;
  AdamW optimizer_;
  int64_t steps_done_ = 0;
  std::vector<DecoderState> carried_;  // one per micro-batch; none without carry_state
};

}  // namespace regla
