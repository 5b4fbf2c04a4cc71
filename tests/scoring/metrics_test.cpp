#include "scoring/metrics.h"

#include <cmath>

#include "tests/matchers.h"

namespace regla {
namespace {

std::vector<TextScore> scores(const std::vector<double>& likelihoods, bool is_greedy = false) {
  std::vector<TextScore> all;
  for (const double likelihood : likelihoods) all.push_back({likelihood, is_greedy});
  return all;
}

double value_of(const std::vector<Metric>& metrics, const std::string& name) {
  for (const Metric& metric : metrics) {
    if (metric.name == name) return metric.value;
  }
  FAIL("no metric " << name);
  return 0;
}

}  // namespace

TEST_CASE("the first of the likeliest choices is taken, by characters too") {
  const Task& piqa = task_named("piqa");
  TaskDocument document;
  document.characters = {2, 8};
  document.gold = 1;
  const auto of = [&](const std::vector<double>& likelihoods) {
    return document_metrics(piqa, document, scores(likelihoods));
  };
  CHECK(value_of(of({-3, -8}), "acc") == 0);
  CHECK(value_of(of({-3, -8}), "acc_norm") == 1);
  CHECK(value_of(of({-3, -3}), "acc") == 0);  // the first, which is wrong
  CHECK(value_of(of({-4, -3}), "acc") == 1);
  document.characters = {0, 1};  // an empty choice is the least likely
  CHECK(value_of(of({-1, -8}), "acc_norm") == 1);
  CHECK(of({-1, -8}).size() == 2);
  CHECK(document_metrics(task_named("boolq"), document, scores({-1, -8})).size() == 1);
}

TEST_CASE("the mass of true choices is a share of all, however small they are") {
  const Task& task = task_named("truthfulqa_mc2");
  TaskDocument document;
  document.is_true = {true, false, true};
  for (const double shift : {0.0, -2000.0}) {
    const std::vector<double> logs = {std::log(0.5) + shift, std::log(0.3) + shift,
                                      std::log(0.1) + shift};
    CHECK(value_of(document_metrics(task, document, scores(logs)), "acc") ==
          Approx(0.6 / 0.9).epsilon(1e-9));
  }
}

// The numbers are those of lm_eval.api.metrics.
TEST_CASE("means, perplexities and their errors are the harness's") {
  const std::vector<double> logs = {-1.5, -0.25, -3.0, -7.125, -0.5};
  CHECK(*error_of_perplexity(logs) == Approx(48.14328650789751).epsilon(1e-12));
  CHECK(*error_of_mean(std::vector<double>{1, 0, 0, 1, 1}) ==
        Approx(0.24494897427831783).epsilon(1e-14));
  CHECK_FALSE(error_of_mean(std::vector<double>{1}));
  CHECK_FALSE(error_of_perplexity(std::vector<double>{1}));
  const std::vector<TaskDocument> documents(5);
  std::vector<std::vector<TextScore>> all;
  for (const double log : logs) all.push_back(scores({log}, log > -1));
  const std::vector<Metric> metrics = task_metrics(task_named("lambada"), documents, all);
  CHECK(value_of(metrics, "perplexity") == Approx(11.8817071130994).epsilon(1e-13));
  CHECK(value_of(metrics, "acc") == Approx(0.4));
  CHECK(metrics[0].error == error_of_perplexity(logs));
}

TEST_CASE("a text's perplexities are over the words and bytes of all") {
  std::vector<TaskDocument> documents(2);
  documents[0].words = 3;
  documents[0].bytes = 10;
  documents[1].words = 1;
  documents[1].bytes = 6;
  const std::vector<std::vector<TextScore>> all = {scores({-1, -4}), scores({-3})};
  const std::vector<Metric> metrics = task_metrics(task_named("wikitext"), documents, all);
  CHECK(value_of(metrics, "word_perplexity") == Approx(std::exp(2)));
  CHECK(value_of(metrics, "byte_perplexity") == Approx(std::exp(0.5)));
  CHECK(value_of(metrics, "bits_per_byte") == Approx(0.5 / std::log(2)));
  for (const Metric& metric : metrics) CHECK_FALSE(metric.error);
}

}  // namespace regla
