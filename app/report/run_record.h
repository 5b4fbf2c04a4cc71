#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analyses/gate_log.h"
#include "app/command.h"
#include "models/inspection.h"
#include "training/metrics.h"

namespace regla::app {

/// How a model's samples are drawn.
struct SampleRequest {
  std::string prompt;   ///< empty: samples begin at <|endoftext|>
  int64_t samples = 2;  ///< 0: none
  int64_t tokens = 120;
  double temperature = 0.8;
  int64_t top_k = 40;
};

/// What a report says about a model itself.
struct ModelFacts {
  std::vector<PartSize> parts;
  int64_t parameters = 0, length = 0, state_bytes = 0;  // state: per sequence of that length
  double forward_flops_per_token = 0, training_flops_per_token = 0;
  std::vector<std::string> samples;
};

/// A JSON file of the run's folder `results`: what `eval --json` or another command printed.
struct Result {
  std::string name;
  Json json;
};

/// All that a report says about a run.
struct RunRecord {
  std::string name, path;
  TrainingConfig config;
  TrainingState state;
  Metrics metrics;
  std::vector<Json> machines;
  std::vector<GateRecord> gates;
  std::vector<Result> results;
  std::optional<ModelFacts> model;
  std::string why_no_model, why_no_samples;  ///< the Error where there is none

  bool is_trained() const { return state.is_begun(); }
};

/// Reads a run. Errors: no checkpoint, or one whose configuration or state cannot be read. A model
/// that cannot be loaded, or cannot write, is told in the record.
RunRecord read_run(const std::string& path, const std::string& name, const SampleRequest& request,
                   Device device);

}  // namespace regla::app
