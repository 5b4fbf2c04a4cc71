#pragma once

#include <filesystem>
#include <optional>

#include "analyses/gate_log.h"
#include "training/checkpoint.h"
#include "training/text_sample.h"

namespace regla::app {

/// Notes in gates.jsonl of a run what the gates do on a few sequences of the validation text while
/// it trains, for its report. Whatever goes wrong is told once, and the training goes on.
class GateWatch {
 public:
  /// `state` is where the training begins.
  GateWatch(const std::filesystem::path& run, const Model& model, const TokenStream& valid,
            const TrainingState& state);

  /// Looks at the gates as they are after `step` updates.
  void look(int64_t step);

 private:
  const Model& model_;
  std::optional<TextSample> sample_;  // none: no more looking
  std::optional<GateLog> log_;
};

/// Writes report.html into the folder of a run that is done; says in one line what is missing where
/// it cannot be written.
void write_report_of(const std::filesystem::path& run);

}  // namespace regla::app
