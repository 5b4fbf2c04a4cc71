#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "training/configuration.h"

namespace regla {

/// The learning rate of update `step`, counted from 0: a linear rise over `warmup_steps`, then
/// constant, or down to `final_learning_rate` times the peak at `steps`.
inline double learning_rate_at(const TrainingConfig& config, int64_t step) {
  if (step < config.warmup_steps) {
    return config.learning_rate * static_cast<double>(step + 1) /
           static_cast<double>(config.warmup_steps);
  }
  const int64_t after = std::max<int64_t>(1, config.steps - config.warmup_steps);
  const double progress =
      std::min(1.0, static_cast<double>(step - config.warmup_steps) / static_cast<double>(after));
  const double end = config.final_learning_rate;
  double factor = 1;
  if (config.schedule == Schedule::Linear) factor = 1 - (1 - end) * progress;
  if (config.schedule == Schedule::Cosine) {
    factor = end + (1 - end) * (1 + std::cos(std::numbers::pi * progress)) / 2;
  }
  return config.learning_rate * factor;
}

}  // namespace regla
