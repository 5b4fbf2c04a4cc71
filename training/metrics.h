#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "storage/line_log.h"

namespace regla {

/// One line of metrics.jsonl about training.
struct StepMetrics {
  int64_t step = 0;      ///< updates done
  int64_t tokens = 0;    ///< tokens trained on so far
  double loss = 0;       ///< nats per token
  double lr = 0;         ///< learning rate
  double grad_norm = 0;  ///< global norm before clipping
  double tokens_per_s = 0;
  double gflops = 0;     ///< 1e9 floating-point operations per second
  double elapsed_s = 0;  ///< seconds of training, resumed runs included
};

/// One line of metrics.jsonl about a validation.
struct EvalMetrics {
  int64_t step = 0;
  int64_t tokens = 0;  ///< tokens trained on so far
  double elapsed_s = 0;
  std::string split;
  double loss = 0;  ///< nats per token
  double ppl = 0;   ///< per token
  double word_ppl = 0;
  double bits_per_byte = 0;
};

template <class M, class Visitor>
requires std::same_as<std::remove_const_t<M>, StepMetrics>
void fields(M& m, Visitor&& visit) {
  visit("step", m.step, "updates done");
  visit("tokens", m.tokens, "tokens trained on so far");
  visit("loss", m.loss, "nats per token");
  visit("lr", m.lr, "learning rate");
  visit("grad_norm", m.grad_norm, "global norm of the gradient before clipping");
  visit("tokens_per_s", m.tokens_per_s, "speed");
  visit("gflops", m.gflops, "1e9 floating-point operations per second");
  visit("elapsed_s", m.elapsed_s, "seconds of training");
}

template <class M, class Visitor>
requires std::same_as<std::remove_const_t<M>, EvalMetrics>
void fields(M& m, Visitor&& visit) {
  visit("step", m.step, "updates done");
  visit("tokens", m.tokens, "tokens trained on so far");
  visit("elapsed_s", m.elapsed_s, "seconds of training");
  visit("split", m.split, "what was evaluated");
  visit("loss", m.loss, "nats per token");
  visit("ppl", m.ppl, "perplexity per token");
  visit("word_ppl", m.word_ppl, "perplexity per word");
  visit("bits_per_byte", m.bits_per_byte, "bits per byte of the file");
}

/// metrics.jsonl: one JSON object per line, in the file as soon as `append` returns. Numbers that
/// are not finite become null.
class MetricsLog {
 public:
  /// Goes on after step `last_step` and the validation of step `last_validation`: later lines are
  /// dropped, so that nothing is there twice. A new run passes -1. Errors are those of LineLog.
  MetricsLog(const std::filesystem::path& path, int64_t last_step, int64_t last_validation);

  void append(const StepMetrics& metrics);
  void append(const EvalMetrics& metrics);

 private:
  LineLog log_;
};

/// What metrics.jsonl says.
struct Metrics {
  std::vector<StepMetrics> steps;  ///< numbers that were not finite are NaN
  std::vector<EvalMetrics> validations;
  int64_t damaged = 0;  ///< lines that are neither
};

/// Reads it as far as it can be read, whoever is writing to it; nothing where there is no file.
Metrics read_metrics(const std::filesystem::path& path);

}  // namespace regla
