#include "app/eval_tasks.h"

#include <chrono>
#include <cmath>
#include <limits>

#include "app/command.h"
#include "app/options.h"
#include "models/finite.h"
#include "scoring/task_evaluation.h"
#include "storage/files.h"

namespace regla::app {
namespace {

/// The tasks of a list with commas, their files read.
std::vector<TaskData> opened_tasks(const std::string& names, const std::string& folder) {
  std::vector<TaskData> tasks;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    tasks.push_back(open_task(task_named(names.substr(begin, end - begin)), folder));
    begin = end + 1;
  }
  return tasks;
}

Json score_json(const Metric& metric) {
  return {{"value", metric.value}, {"error", metric.error ? Json(*metric.error) : Json(nullptr)}};
}

/// Where the examples come from, for people and programs.
std::string examples_text(const TaskData& data, const TaskEvaluation& result) {
  switch (data.task->examples) {
    case Examples::Own:
      return "the task's own six";
    case Examples::Nothing:
      return "none, the task has no context";
    case Examples::Any:
      return result.shots > 0 ? "the scored documents, the document itself among them" : "none";
    case Examples::Others:
      break;
  }
  if (result.shots == 0) return "none";
  return data.training_file.empty() ? "the other scored documents: there is no training file"
                                    : data.training_file.string();
}

Json result_json(const TaskData& data, const TaskEvaluation& result, double seconds) {
  int64_t requests = 0;
  for (const auto& document : result.requests) {
    requests += static_cast<int64_t>(document.pairs.size());
  }
  Json json = {{"version", std::string(data.task->version)},
               {"shots", result.shots},
               {"examples_from", examples_text(data, result)},
               {"file", data.file.string()},
               {"sha256", data.hash}};
  if (result.shots > 0 && !data.training_file.empty()) json["pool_sha256"] = data.training_hash;
  json["documents"] = result.requests.size();
  json["documents_in_file"] = data.documents.size();
  for (const Metric& metric : result.metrics) json["scores"][metric.name] = score_json(metric);
  json["requests"] = requests;
  json["truncated"] = result.truncated;
  json["shared_contexts"] = result.counts.shared;
  json["without_shared_context"] = result.counts.apart;
  json["tokens"] = result.counts.tokens;
  json["seconds"] = seconds;
  json["tokens_per_second"] = static_cast<double>(result.counts.tokens) / seconds;
  return json;
}

/// A line for each document: what was asked, in text and tokens, and the scores.
std::string samples_text(const TaskData& data, const TaskEvaluation& result) {
  std::string lines;
  for (size_t d = 0; d < result.requests.size(); ++d) {
    const TaskDocument& document = data.documents[d];
    const DocumentRequests& asked = result.requests[d];
    Json line = {{"task", std::string(data.task->name)}, {"doc_id", d}};
    if (data.task->measure == Measure::Choice) line["target"] = document.gold;
    if (data.task->measure == Measure::TrueMass) line["is_true"] = document.is_true;
    for (const Metric& metric : document_metrics(*data.task, document, result.scores[d])) {
      line[metric.name] = metric.value;
    }
    for (size_t i = 0; i < asked.pairs.size(); ++i) {
      Json request;
      if (data.task->measure != Measure::Text) {
        if (i == 0 || document.contexts.size() > 1) {
          request["context"] = asked.examples + document.context(i);
          request["context_ids"] = asked.pairs[i].context;
        }
        request["continuation"] = document.continuation(i);
      } else {
        request["context_ids"] = asked.pairs[i].context;
      }
      request["continuation_ids"] = asked.pairs[i].continuation;
      request["log_likelihood"] = result.scores[d][i].log_likelihood;
      if (data.task->measure == Measure::Word) request["greedy"] = result.scores[d][i].is_greedy;
      line["requests"].push_back(request);
    }
    lines += dumped(line) + "\n";
  }
  return lines;
}

void print_task(const std::string& name, const Json& json) {
  std::string line = std::to_string(json["shots"].get<int64_t>()) + "-shot";
  for (const auto& [metric, score] : json["scores"].items()) {
    line += ", " + metric + " " + rounded(score["value"].get<double>());
    if (!score["error"].is_null()) line += " +- " + rounded(score["error"].get<double>(), 3);
  }
  print_row(name, line);
  print_row("", "version " + json["version"].get<std::string>() + ", " +
                    grouped(json["documents"].get<int64_t>()) + " of " +
                    grouped(json["documents_in_file"].get<int64_t>()) +
                    " documents, examples: " + json["examples_from"].get<std::string>());
  print_row("", json["file"].get<std::string>() + ", sha256 " + json["sha256"].get<std::string>());
  print_row("", grouped(json["requests"].get<int64_t>()) + " requests, " +
                    grouped(json["truncated"].get<int64_t>()) + " cut on the left, " +
                    grouped(json["without_shared_context"].get<int64_t>()) +
                    " documents without a shared context, " +
                    rounded(json["tokens_per_second"].get<double>(), 3) + " tokens/s");
}

/// An Error that names the weights, or the task, where a score is no number.
void check_scores(Decoder& decoder, const TaskEvaluation& result, std::string_view task) {
  for (const auto& scores : result.scores) {
    for (const TextScore& score : scores) {
      if (std::isfinite(score.log_likelihood)) continue;
      check_finite(decoder, Tensor::full({1}, score.log_likelihood, DType::F64),
                   "[eval] a log-likelihood of " + std::string(task) + " is");
    }
  }
}

}  // namespace

void TaskArguments::add_to(CLI::App& command) {
  std::string names;
  for (const Task& task : all_tasks()) names.append(names.empty() ? "" : ",").append(task.name);
  add_text(command, "--tasks", tasks,
           "score tasks, with commas between: " + names + "; default: a split", "TASKS");
  add_text(command, "--task-data", folder,
           "folder with a folder for each task; default: none, an error beside --tasks", "FOLDER");
  add_number(command, "--shots", shots, "examples in front of each document; default: 0", 0);
  add_number(command, "--limit", limit, "documents of each task; default: all", 1);
  command.add_flag("--whole-texts", whole_texts,
                   "score each choice from the beginning of its text: the same, more slowly");
  add_text(command, "--samples", samples,
           "write requests and scores of each document as JSON lines; default: nowhere", "FILE");
}

void TaskArguments::check_given(bool has_split) const {
  check(has_split != are_given(), "[eval] expected either --data PATH or --tasks TASKS");
  if (are_given()) {
    check(!folder.empty(), "[eval] expected --task-data FOLDER beside --tasks");
  } else {
    check(folder.empty() && samples.empty() && !shots && !limit && !whole_texts,
          "[eval] --task-data, --shots, --limit, --whole-texts and --samples need --tasks");
  }
}

int eval_tasks(const TaskArguments& arguments, const Model& model, bool json) {
  const std::vector<TaskData> tasks = opened_tasks(arguments.tasks, arguments.folder);
  const TaskOptions options = {.shots = arguments.shots.value_or(0),
                               .limit = arguments.limit.value_or(0),
                               .length = model.config.model.sequence_length,
                               .shares = !arguments.whole_texts};
  Json results = {{"follows", "lm-evaluation-harness " + std::string(kHarnessVersion)},
                  {"length", options.length},
                  {"precision", std::string(name_of(model.config.precision))},
                  {"weights", name_of(model.decoder->weights_type())}};
  if (!json) {
    for (const auto& [key, value] : results.items()) {
      print_row(key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  std::string samples;
  for (const TaskData& data : tasks) {
    const std::string name(data.task->name);
    const auto start = std::chrono::steady_clock::now();
    const TaskEvaluation result =
        evaluate_task(*model.decoder, *model.tokenizer, data, options,
                      [&](int64_t done, int64_t total) { show_requests(name, done, total); });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    end_scoring();
    check_scores(*model.decoder, result, name);
    Json& shown = results["tasks"][name] = result_json(data, result, taken.count());
    if (!json) print_task(name, shown);
    if (!arguments.samples.empty()) samples += samples_text(data, result);
  }
  if (!arguments.samples.empty()) write_file(arguments.samples, samples, NamedBy::User);
  if (json) print_json(results);
  return 0;
}

}  // namespace regla::app
