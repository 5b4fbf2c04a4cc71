#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "scoring/choices.h"
#include "scoring/metrics.h"
#include "scoring/task.h"
#include "scoring/token_pair.h"
#include "text/tokenizer.h"

namespace regla {

struct TaskOptions {
  int64_t shots = 0;     ///< examples in front of each document, where the task draws them
  int64_t limit = 0;     ///< documents from the beginning; 0: all
  int64_t length = 256;  ///< T, inputs that the model takes; what is longer is cut on the left
  bool shares = true;    ///< as ChoiceOptions
};

/// What is asked about a document.
struct DocumentRequests {
  std::string examples;          // stand in front of each context
  std::vector<TokenPair> pairs;  // one for each request, or for each window of a text
};

/// The requests of the documents of a task in their order. Errors name the document: what
/// EncodedContext refuses, a continuation that is longer than T, and more shots than FewShot draws.
std::vector<DocumentRequests> task_requests(const TaskData& data, const Tokenizer& tokenizer,
                                            const TaskOptions& options);

/// The score of a task.
struct TaskEvaluation {
  int64_t shots = 0;  ///< examples that were drawn for each document
  std::vector<DocumentRequests> requests;
  std::vector<std::vector<TextScore>> scores;  ///< of each pair of each document
  std::vector<Metric> metrics;
  int64_t truncated = 0;  ///< requests that were cut on the left
  ChoiceCounts counts;
};

/// Scores a task. `progress(done, total)` is told of requests.
TaskEvaluation evaluate_task(Decoder& decoder, const Tokenizer& tokenizer, const TaskData& data,
                             const TaskOptions& options,
                             const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace regla
