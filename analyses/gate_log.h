#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "analyses/gate_analysis.h"
#include "storage/line_log.h"

namespace regla {

/// gates.jsonl of a run: what its gates did on a text at some steps of the training, a line for
/// each gated layer and one for all of them together.
class GateLog {
 public:
  /// Goes on after step `last_step`; later lines are dropped. A new run passes -1. Errors are those
  /// of LineLog.
  GateLog(const std::filesystem::path& path, int64_t last_step);

  /// Appends the gates after `step` updates; nothing where no layer has any.
  void append(int64_t step, const std::vector<LayerGates>& layers);

 private:
  LineLog log_;
};

/// The gates of all layers after `step` updates, as fractions of their number.
struct GateRecord {
  int64_t step = 0;
  double low = 0, high = 0;  ///< saturated: below GateStatistics::kLow, above kHigh
  std::array<double, GateStatistics::kBins> bins = {};
};

/// What such a file says of all layers together; lines that say something else are passed over.
/// Nothing where there is no file.
std::vector<GateRecord> read_gates(const std::filesystem::path& path);

}  // namespace regla
