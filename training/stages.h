#pragma once

#include <cstdint>
#include <vector>

#include "training/configuration.h"

namespace regla {

/// Consecutive updates of a training with one objective, one rate and one size.
struct Stage {
  int64_t begin = 0, end = 0;  ///< updates before it, and before what follows
  int64_t tokens = 0;          ///< trained on before it
  StageObjective objective = StageObjective::Train;
  double temperature = 1;
  TrainingConfig config;  ///< of this stage alone, whose updates count from its beginning

  bool has_teacher() const { return objective != StageObjective::Train; }
};

/// The stages of a configuration up to its `steps`, at least one: those it lists, then what is left
/// for plain training.
std::vector<Stage> stages_of(const TrainingConfig& config);

/// What `config` is within one of its stages.
TrainingConfig config_within(const TrainingConfig& config, const StageConfig& stage);

/// The place in `stages` of what did update `step`, counted from 1; 0: of what does the first.
size_t stage_at(const std::vector<Stage>& stages, int64_t step);

}  // namespace regla
