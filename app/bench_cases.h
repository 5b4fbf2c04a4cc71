#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "training/configuration.h"

namespace regla::app {

/// The model and the amount of work that a benchmark measures.
struct BenchOptions {
  int64_t layers = 4, hidden = 128, heads = 2, vocab = 8192;
  int64_t length = 256, batch = 16;
  int64_t repeats = 9;
  std::vector<std::string> mixers = {"regla", "softmax"};
};

/// One line of a benchmark: repeated timings of the same work.
struct BenchRow {
  std::string name;
  double tokens = 0;            ///< per repetition
  double flops = 0;             ///< per repetition, counted as in docs/flops.md
  std::vector<double> seconds;  ///< of each repetition, sorted

  double median() const { return seconds[seconds.size() / 2]; }
};

/// Single mixers: forward, forward and backward, and decoding token by token.
std::vector<BenchRow> bench_mixers(const BenchOptions& options);
/// Whole updates of a decoder: forward, backward, clipping and AdamW.
std::vector<BenchRow> bench_train(const BenchOptions& options);
/// A decoder's next token for one sequence, after a prompt of `length` tokens, and the prompt.
std::vector<BenchRow> bench_decode(const BenchOptions& options);
// Each compares its results with another form of the same computation first. A difference is an
// Error: a wrong result has no speed.

/// GFLOP/s of the best of ten large float matrix products on all threads: what this machine gives
/// at best right now.
double sgemm_peak();

}  // namespace regla::app
