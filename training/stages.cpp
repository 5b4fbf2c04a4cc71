#include "training/stages.h"

#include <algorithm>

namespace regla {

TrainingConfig config_within(const TrainingConfig& config, const StageConfig& stage) {
  TrainingConfig own = config;
  own.stages.clear();
  own.teacher.clear();
  own.steps = stage.steps;
  own.learning_rate = stage.learning_rate;
  own.schedule = stage.schedule;
  own.warmup_steps = stage.warmup_steps;
  own.carry_state = config.carry_state && stage.objective == StageObjective::Train;
  if (stage.batch_size > 0) own.batch_size = stage.batch_size;
  if (stage.sequence_length > 0) own.model.sequence_length = stage.sequence_length;
  return own;
}

namespace {

/// Tokens trained on after so many updates of a stage.
int64_t tokens_after(const Stage& stage, int64_t steps) {
  int64_t tokens = 0;
  const bool is_huge = __builtin_mul_overflow(stage.config.batch_size,
                                              stage.config.model.sequence_length, &tokens) ||
                       __builtin_mul_overflow(tokens, steps, &tokens) ||
                       __builtin_add_overflow(tokens, stage.tokens, &tokens);
  check(!is_huge, "[config] expected stages of fewer than 2^63 tokens together");
  return tokens;
}

}  // namespace

std::vector<Stage> stages_of(const TrainingConfig& config) {
  std::vector<Stage> stages;
  Stage next;
  for (const StageConfig& stage : config.stages) {
    if (next.begin >= config.steps && !stages.empty()) return stages;
    next.end = std::min(next.begin + stage.steps, config.steps);
    next.objective = stage.objective;
    next.temperature = stage.temperature;
    next.config = config_within(config, stage);
    stages.push_back(next);
    next.tokens = tokens_after(next, stage.steps);
    next.begin += stage.steps;
  }
  if (next.begin >= config.steps && !stages.empty()) return stages;
  next.end = config.steps;
  next.objective = StageObjective::Train;
  next.config = config;
  next.config.stages.clear();
  next.config.teacher.clear();
  next.config.steps = config.steps - next.begin;
  stages.push_back(next);
  return stages;
}

size_t stage_at(const std::vector<Stage>& stages, int64_t step) {
  size_t at = 0;
  while (at + 1 < stages.size() && step > stages[at].end) ++at;
  return at;
}

}  // namespace regla
