#include "scoring/metrics.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/parallel.h"
#include "scoring/python_random.h"

namespace regla {
namespace {

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The deviation of values from their mean, over n - 1.
double deviation(std::span<const double> values) {
  const double middle = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - middle) * (value - middle);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// The share of the true choices in the probability of all, which may be too small for a double.
double true_mass(std::span<const double> likelihoods, const std::vector<bool>& is_true) {
  const double largest = *std::max_element(likelihoods.begin(), likelihoods.end());
  double of_true = 0, all = 0;
  for (size_t i = 0; i < likelihoods.size(); ++i) {
    const double probability = std::exp(likelihoods[i] - largest);
    all += probability;
    if (is_true[i]) of_true += probability;
  }
  return of_true / all;
}

double sum_of(std::span<const TextScore> scores) {
  double sum = 0;
  for (const TextScore& score : scores) sum += score.log_likelihood;
  return sum;
}

std::vector<Metric> text_metrics(std::span<const TaskDocument> documents,
                                 std::span<const std::vector<TextScore>> scores) {
  double nats = 0, words = 0, bytes = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    nats -= sum_of(scores[i]);
    words += static_cast<double>(documents[i].words);
    bytes += static_cast<double>(documents[i].bytes);
  }
  return {{"word_perplexity", std::exp(nats / words), {}},
          {"byte_perplexity", std::exp(nats / bytes), {}},
          {"bits_per_byte", nats / bytes / std::numbers::ln2, {}}};
}

}  // namespace

int64_t likeliest(std::span<const double> values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

std::optional<double> error_of_mean(std::span<const double> values) {
  if (values.size() < 2) return {};
  return deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

std::optional<double> error_of_perplexity(std::span<const double> log_likelihoods) {
  constexpr size_t kSeeds = 100, kDraws = 1000;
  if (log_likelihoods.size() < 2) return {};
  std::vector<double> perplexities(kSeeds * kDraws);
  const auto count = static_cast<double>(log_likelihoods.size());
  parallel_for(kSeeds, 1, [&](int64_t begin, int64_t end) {
    for (int64_t seed = begin; seed < end; ++seed) {
      PythonRandom random(static_cast<uint32_t>(seed));
      for (size_t draw = 0; draw < kDraws; ++draw) {
        double sum = 0;
        for (size_t i = 0; i < log_likelihoods.size(); ++i) {
          sum += log_likelihoods[static_cast<size_t>(random.real() * count)];
        }
        perplexities[static_cast<size_t>(seed) * kDraws + draw] = std::exp(-sum / count);
      }
    }
  });
  return deviation(perplexities);
}

std::vector<Metric> document_metrics(const Task& task, const TaskDocument& document,
                                     std::span<const TextScore> scores) {
  std::vector<double> likelihoods;
  for (const TextScore& score : scores) likelihoods.push_back(score.log_likelihood);
  switch (task.measure) {
    case Measure::Text:
      return {{"log_likelihood", sum_of(scores), {}}};
    case Measure::Word:
      return {{"perplexity", likelihoods[0], {}}, {"acc", scores[0].is_greedy ? 1.0 : 0.0, {}}};
    case Measure::TrueMass:
      return {{"acc", true_mass(likelihoods, document.is_true), {}}};
    case Measure::Choice:
      break;
  }
  const auto is_right = [&](int64_t choice) { return choice == document.gold ? 1.0 : 0.0; };
  std::vector<Metric> metrics = {{"acc", is_right(likeliest(likelihoods)), {}}};
  if (!task.by_length) return metrics;
  for (size_t i = 0; i < likelihoods.size(); ++i) {
    likelihoods[i] /= static_cast<double>(document.characters[i]);
  }
  metrics.push_back({"acc_norm", is_right(likeliest(likelihoods)), {}});
  return metrics;
}

std::vector<Metric> task_metrics(const Task& task, std::span<const TaskDocument> documents,
                                 std::span<const std::vector<TextScore>> scores) {
  if (task.measure == Measure::Text) return text_metrics(documents, scores);
  std::vector<Metric> metrics;
  std::vector<std::vector<double>> values;  // of each metric, a document after the other
  for (size_t i = 0; i < documents.size(); ++i) {
    metrics = document_metrics(task, documents[i], scores[i]);
    values.resize(metrics.size());
    for (size_t k = 0; k < metrics.size(); ++k) values[k].push_back(metrics[k].value);
  }
  for (size_t k = 0; k < metrics.size(); ++k) {
    const bool is_perplexity = metrics[k].name == "perplexity";
    metrics[k].value = is_perplexity ? std::exp(-mean(values[k])) : mean(values[k]);
    metrics[k].error = is_perplexity ? error_of_perplexity(values[k]) : error_of_mean(values[k]);
  }
  return metrics;
}

}  // namespace regla
