#pragma once

#include <cstdint>
#include <functional>

#include "scoring/perplexity.h"
#include "text/token_cache.h"
#include "training/checkpoint.h"
#include "training/metrics.h"
#include "training/progress.h"
#include "training/run_folder.h"
#include "training/trainer.h"

namespace regla {

/// What a program may want to show or decide while training runs; each may be empty.
struct TrainingEvents {
  /// After every update. `is_logged` marks those that have a line in metrics.jsonl.
  std::function<void(const ProgressState&, bool is_logged)> on_step;
  /// Within validations: tokens scored so far, of the whole split.
  std::function<void(int64_t done, int64_t total)> on_scoring;
  /// After every validation.
  std::function<void(const EvalMetrics&)> on_evaluation;
  /// Asked after every update and within validations: true saves and ends the training.
  std::function<bool()> should_stop;
};

/// Trains a run from where `trainer` and `state` stand up to the trainer's last step: updates,
/// metrics, validations (none without `valid`) and checkpoints, the last of them at the end. The
/// first checkpoint is that of the initial weights. A training of several stages is several calls,
/// each with the stage's trainer and the state that the one before left. Returns false when
/// `should_stop` ended it early; everything up to there is saved then. A DivergedError leaves the
/// last checkpoint and the best, and names both.
///
/// Validations happen every `eval_every` steps on `eval_batches` batches, and on the whole split at
/// the end. The best by validation compares the former with each other. A better one gets a
/// checkpoint at once.
bool run_training(RunFolder& run, const Model& model, Trainer& trainer, const TokenStream* valid,
                  TrainingState& state, const TrainingEvents& events);

}  // namespace regla
