#include "scoring/task_evaluation.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/check.h"
#include "core/parallel.h"
#include "scoring/few_shot.h"

namespace regla {
namespace {

size_t documents_of(const TaskData& data, const TaskOptions& options) {
  const size_t all = data.documents.size();
  return options.limit > 0 ? std::min(all, static_cast<size_t>(options.limit)) : all;
}

std::vector<TokenPair> pairs_of(const Task& task, const TaskDocument& document,
                                const std::string& examples, const Tokenizer& tokenizer,
                                int64_t length) {
  if (task.measure == Measure::Text) {
    return rolling_windows(tokenizer, document.continuations[0], length);
  }
  std::vector<TokenPair> pairs;
  if (document.contexts.size() > 1) {
    for (const std::string& context : document.contexts) {
      const EncodedContext encoded(tokenizer, examples + context);
      pairs.push_back(encoded.with(document.continuations[0]));
    }
  } else {
    const EncodedContext encoded(tokenizer, examples + document.contexts[0]);
    for (const std::string& continuation : document.continuations) {
      pairs.push_back(encoded.with(continuation));
    }
  }
  for (const TokenPair& pair : pairs) {
    const auto tokens = static_cast<int64_t>(pair.continuation.size());
    check(tokens <= length, "[eval] expected a continuation of at most ", length,
          " tokens, which is the model's length, got ", tokens);
  }
  return pairs;
}

/// The last T + 1 tokens of a pair: T inputs, and one that is only predicted.
ScoredText text_of(const TokenPair& pair, int64_t length) {
  ScoredText text = {pair.context, static_cast<int64_t>(pair.continuation.size())};
  text.ids.insert(text.ids.end(), pair.continuation.begin(), pair.continuation.end());
  const int64_t excess = static_cast<int64_t>(text.ids.size()) - (length + 1);
  if (excess > 0) text.ids.erase(text.ids.begin(), text.ids.begin() + excess);
  return text;
}

}  // namespace

std::vector<DocumentRequests> task_requests(const TaskData& data, const Tokenizer& tokenizer,
                                            const TaskOptions& options) {
  check(options.shots >= 0 && options.length > 0,
        "[eval] expected shots of at least 0 and a length of at least 1, got ", options.shots,
        " and ", options.length);
  std::vector<DocumentRequests> requests(documents_of(data, options));
  FewShot few_shot(data, options.shots);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].examples = few_shot.next(data.documents[i]);
  }
  parallel_for(static_cast<int64_t>(requests.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      DocumentRequests& one = requests[static_cast<size_t>(i)];
      try {
        one.pairs = pairs_of(*data.task, data.documents[static_cast<size_t>(i)], one.examples,
                             tokenizer, options.length);
      } catch (const Error& error) {
        fail(error.what(), " (", data.task->name, ", document ", i + 1, ")");
      }
    }
  });
  return requests;
}

TaskEvaluation evaluate_task(Decoder& decoder, const Tokenizer& tokenizer, const TaskData& data,
                             const TaskOptions& options,
                             const std::function<void(int64_t, int64_t)>& progress) {
  TaskEvaluation result;
  result.shots = FewShot(data, options.shots).shots();
  result.requests = task_requests(data, tokenizer, options);
  const bool is_text = data.task->measure == Measure::Text;
  // The windows of a text have nothing in common: each is a group of its own.
  std::vector<std::vector<ScoredText>> groups;
  for (const DocumentRequests& document : result.requests) {
    if (!is_text) groups.emplace_back();
    for (const TokenPair& pair : document.pairs) {
      if (is_text) groups.emplace_back();
      const size_t tokens = pair.context.size() + pair.continuation.size();
      if (static_cast<int64_t>(tokens) > options.length + 1) ++result.truncated;
      groups.back().push_back(text_of(pair, options.length));
    }
  }
  std::vector<std::vector<TextScore>> scores = score_choices(
      decoder, groups, {.shares = options.shares, .greedy = data.task->measure == Measure::Word},
      &result.counts, progress);
  if (is_text) {
    size_t next = 0;
    for (const DocumentRequests& document : result.requests) {
      auto& windows = result.scores.emplace_back();
      for (size_t i = 0; i < document.pairs.size(); ++i) windows.push_back(scores[next++][0]);
    }
  } else {
    result.scores = std::move(scores);
  }
  result.metrics = task_metrics(*data.task, std::span(data.documents).first(result.requests.size()),
                                result.scores);
  return result;
}

}  // namespace regla
