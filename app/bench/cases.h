#pragma once

#include <cstdint>
#include <optional>

#include "app/bench/measurements.h"
#include "models/mixer_json.h"
#include "training/configuration.h"

namespace regla::app {

/// What a benchmark measures.
struct BenchOptions {
  TrainingConfig config;  ///< `model.vocab` is set
  int64_t longest =
      16384;  ///< `lengths`, `recurrences`: tokens of the longest segment, and of every batch
  int64_t longest_text = 8192;  ///< `decode`

  Device device() const { return Device::named(config.device); }
  /// What an update is measured with.
  TrainingConfig training() const {
    TrainingConfig training = config;
    training.carry_state = false;
    return training;
  }
  double tokens() const {
    return static_cast<double>(config.batch_size * config.model.sequence_length);
  }
};

// Each compares its results with another form of the same computation before it is timed. A
// difference is an Error: a wrong result has no speed.

/// Whole updates of the decoder: forward, backward, clipping and AdamW.
void bench_train(const BenchOptions& options, Measurements& out);
/// The same by kernels: a row for each, of all its calls in an update, largest first. On a GPU they
/// are timed inside of the recorded update.
void bench_step(const BenchOptions& options, Measurements& out);
/// The decoder's next token for one sequence, after a prompt of `sequence_length` tokens, and the
/// prompt; then, as in the paper's Figure 5, texts of 2^6, 2^7 ... `longest_text` tokens behind a
/// prompt of 5, of models of that size with softmax attention, Fast Decay and ReGLA, `batch_size`
/// sequences at once. Their rows are called `<mixer> T=<length>`; standard error is told of each
/// length.
void bench_decode(const BenchOptions& options, Measurements& out);
/// The configuration's mixers, and softmax attention beside them: forward, forward and backward,
/// and token by token.
void bench_mixers(const BenchOptions& options, Measurements& out);
/// The recurrences and softmax attention, forward, and forward and backward, over segments of 1024,
/// 2048, ... `longest` tokens with the configuration's heads and `longest` tokens in each batch.
/// Rows are called `<name> T=<length> forward` and `... both`.
void bench_recurrences(const BenchOptions& options, Measurements& out);
/// Forward and backward of those mixers over segments of 512, 1024, ... `longest` tokens, with the
/// same number of tokens in each batch. Rows are called `<mixer> T=<length>`.
void bench_lengths(const BenchOptions& options, Measurements& out);
/// The parts of an update at the configuration's sizes, and the recurrences at a fixed one.
void bench_ops(const BenchOptions& options, Measurements& out);

/// Draws the texts of a report of `bench decode` into a folder: decode.json, .csv, .gp and .svg.
/// `says`: whether standard output is told what is where.
void draw_texts(const std::string& folder, const Json& report, bool says);

/// shortest, 2 shortest, 4 shortest, ... as far as they divide `tokens`, which is the longest. An
/// Error unless the shortest divides it.
std::vector<int64_t> segment_lengths(int64_t shortest, int64_t tokens);

/// The length from which on the time of rows `a T=<length>` is below that of rows `b T=<length>`,
/// between two measured lengths by straight lines; nothing where they do not cross.
std::optional<double> crossing_length(const std::vector<BenchRow>& rows, const std::string& a,
                                      const std::string& b);

}  // namespace regla::app
