#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "scoring/choices.h"
#include "scoring/task.h"

namespace regla {

/// A number that a task reports, and its standard error where it has one.
struct Metric {
  std::string name;
  double value = 0;
  std::optional<double> error;
};

/// What one document adds to them, from the scores of its requests. For texts that is the
/// log-likelihood of the whole.
std::vector<Metric> document_metrics(const Task& task, const TaskDocument& document,
                                     std::span<const TextScore> scores);

/// What a task reports, as lm-evaluation-harness computes it (docs/tasks.md, "What is computed").
std::vector<Metric> task_metrics(const Task& task, std::span<const TaskDocument> documents,
                                 std::span<const std::vector<TextScore>> scores);

/// The first of the largest.
int64_t likeliest(std::span<const double> values);

/// The standard error of a mean, from the variance over n - 1; none for fewer than two values.
std::optional<double> error_of_mean(std::span<const double> values);
/// That of exp(-mean): the deviation over 100,000 resamples that Python's generators of seeds 0 to
/// 99 draw, a thousand each.
std::optional<double> error_of_perplexity(std::span<const double> log_likelihoods);

}  // namespace regla
