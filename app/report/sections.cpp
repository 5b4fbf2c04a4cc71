#include "app/report/sections.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace regla::app {
namespace {

constexpr size_t kMostRows = 200;  // of a table of whatever a file holds

Html quiet(const Html& text) { return element("p", text, {{"class", "quiet"}}); }

std::string shown(double value, int digits = 4) {
  return std::isfinite(value) ? rounded(value, digits) : "–";
}

/// A value of JSON as it is read: text without quotes.
std::string shown(const Json& value) {
  constexpr auto kLargest = uint64_t{std::numeric_limits<int64_t>::max()};
  const bool is_large = value.is_number_unsigned() && value.get<uint64_t>() > kLargest;  // a seed
  if (value.is_number_integer() && !is_large) return grouped(value.get<int64_t>());
  return value.is_string()         ? value.get<std::string>()
         : value.is_number_float() ? rounded(value.get<double>())
         : value.is_null()         ? "–"
                                   : json_text(value, -1);
}

/// A number as a whole one, where it is one that a count can be.
std::string whole(double value) {
  return std::abs(value) < 1e15 ? grouped(std::llround(value)) : shown(value);
}

/// The values of nested JSON by the path to each, as `mixer.gate`.
std::vector<std::pair<std::string, std::string>> flat(const Json& json) {
  std::vector<std::pair<std::string, std::string>> values;
  const Json flattened = json.flatten();  // lives as long as the loop
  for (const auto& [path, value] : flattened.items()) {
    std::string key = path.empty() ? path : path.substr(1);
    std::ranges::replace(key, '/', '.');
    values.emplace_back(key, shown(value));
  }
  return values;
}

/// A row for each key that any of the objects has, a column for each object. Rows with
/// different values are marked.
std::vector<TableRow> compared(const std::vector<Json>& objects) {
  std::vector<std::string> keys;
  std::vector<std::vector<std::string>> values;  // of a key in each object
  for (size_t i = 0; i < objects.size(); ++i) {
    for (const auto& [key, value] : flat(objects[i])) {
      const auto at = std::ranges::find(keys, key) - keys.begin();
      if (at == std::ssize(keys)) {
        keys.push_back(key);
        values.emplace_back(objects.size());
      }
      values[static_cast<size_t>(at)][i] = value;
    }
  }
  std::vector<TableRow> rows;
  for (size_t row = 0; row < std::min(keys.size(), kMostRows); ++row) {
    TableRow& line = rows.emplace_back();
    line.cells.emplace_back(keys[row]);
    for (const std::string& value : values[row]) line.cells.emplace_back(value);
    line.is_marked = std::ranges::any_of(
        values[row], [&](const std::string& value) { return value != values[row][0]; });
  }
  if (keys.size() > kMostRows) {
    rows.push_back({{"and " + std::to_string(keys.size() - kMostRows) + " more"}});
  }
  return rows;
}

/// An empty cell, then the names of runs.
std::vector<Html> heads_of(const Runs& runs) {
  std::vector<Html> heads = {""};
  for (size_t i = 0; i < runs.size(); ++i) heads.push_back(label_of(runs, i));
  return heads;
}

const EvalMetrics* best_validation(const RunRecord& run) {
  const auto& all = run.metrics.validations;
  const auto best = std::ranges::min_element(all, [](const EvalMetrics& a, const EvalMetrics& b) {
    return a.loss < b.loss || (std::isnan(b.loss) && !std::isnan(a.loss));
  });
  return best == all.end() ? nullptr : &*best;
}

/// Where a training stands.
std::string progress_of(const RunRecord& run) {
  if (!run.is_trained() && run.metrics.steps.empty()) return "not trained here";
  const int64_t logged = run.metrics.steps.empty() ? 0 : run.metrics.steps.back().step;
  const int64_t step = std::max(run.state.step, logged);
  std::string text = grouped(step);
  if (step < run.config.steps) text += " of " + grouped(run.config.steps);
  if (run.state.step < step) text += ", saved " + grouped(run.state.step);
  return text;
}

TableRow overview_row(const Runs& runs, size_t i) {
  const RunRecord& run = runs[i];
  const StepMetrics* last = run.metrics.steps.empty() ? nullptr : &run.metrics.steps.back();
  const EvalMetrics* best = best_validation(run);
  const auto of_best = [&](double EvalMetrics::*value) { return best ? shown(best->*value) : "–"; };
  return {
      {label_of(runs, i), run.model ? grouped(run.model->parameters) : "–", progress_of(run),
       grouped(last ? std::max(last->tokens, run.state.tokens) : run.state.tokens),
       last ? shown(last->loss) : "–", of_best(&EvalMetrics::loss), of_best(&EvalMetrics::ppl),
       of_best(&EvalMetrics::word_ppl), of_best(&EvalMetrics::bits_per_byte),
       best ? grouped(best->step) : "–", last ? whole(last->tokens_per_s) : "–",
       duration_text(last ? std::max(last->elapsed_s, run.state.elapsed_s) : run.state.elapsed_s)}};
}

/// What a reader should know before the numbers.
Html remarks(const RunRecord& run) {
  Html lines;
  const auto say = [&](const std::string& text) { lines += quiet(run.name + ": " + text) + "\n"; };
  const auto is_bad = [](const StepMetrics& step) { return !std::isfinite(step.loss); };
  const auto& steps = run.metrics.steps;
  if (const auto first = std::ranges::find_if(steps, is_bad); first != steps.end()) {
    say("the training loss is not finite in " + grouped(std::ranges::count_if(steps, is_bad)) +
        " of " + grouped(std::ssize(steps)) + " lines of metrics, first at step " +
        grouped(first->step));
  }
  if (run.metrics.damaged > 0) {
    say(grouped(run.metrics.damaged) + " lines of metrics.jsonl cannot be read and are left out");
  }
  if (steps.empty()) say("no metrics of a training");
  if (!steps.empty() && run.metrics.validations.empty()) say("no validation");
  if (!run.why_no_model.empty()) say("the model cannot be loaded: " + run.why_no_model);
  return lines;
}

/// What a result says, with a task's scores in a line each.
Json summary_of(const Json& result) {
  if (!result.is_object() || !result.contains("tasks")) return result;
  Json lines = Json::object();
  for (const auto& [task, numbers] : result["tasks"].items()) {
    if (!numbers.is_object() || !numbers.contains("scores")) return result;
    for (const auto& [metric, score] : numbers["scores"].items()) {
      if (!score.is_object() || !score.contains("value")) return result;
      std::string text = shown(score["value"]);
      if (score.contains("error") && !score["error"].is_null()) {
        text += " ± " + shown(score["error"]);
      }
      lines[task + ", " + shown(numbers.value("shots", Json(0))) + "-shot, " + metric] = text;
    }
  }
  return lines;
}

bool is_sample(const Json& result) {
  return result.is_object() && result.contains("prompt") && result.contains("text");
}

/// The names of results that any run has, in the order of the alphabet.
std::vector<std::string> result_names(const Runs& runs) {
  std::vector<std::string> names;
  for (const RunRecord& run : runs) {
    for (const Result& result : run.results) {
      if (!is_sample(result.json)) names.push_back(result.name);
    }
  }
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Json result_named(const RunRecord& run, const std::string& name) {
  const auto found = std::ranges::find(run.results, name, &Result::name);
  return found == run.results.end() ? Json::object() : summary_of(found->json);
}

Html validations(const Runs& runs) {
  std::vector<TableRow> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto add = [&](const char* which, const EvalMetrics& m) {
      rows.push_back({{label_of(runs, i), which, grouped(m.step), shown(m.loss, 5), shown(m.ppl, 5),
                       shown(m.word_ppl, 5), shown(m.bits_per_byte)}});
    };
    if (const EvalMetrics* best = best_validation(runs[i])) {
      const EvalMetrics& last = runs[i].metrics.validations.back();
      add(best->step == last.step ? "best, last" : "best", *best);
      if (best->step != last.step) add("last", last);
    }
  }
  if (rows.empty()) return {};
  return element("h3", "Validation split, while training") +
         table({"run", "", "step", "loss", "perplexity", "per word", "bits per byte"}, rows);
}

Html sample(const std::string& text) { return element("pre", text, {{"dir", "auto"}}) + "\n"; }

Html samples_of(const RunRecord& run) {
  Html texts;
  if (run.model) {
    for (const std::string& text : run.model->samples) texts += sample(text);
  }
  for (const Result& result : run.results) {
    if (!is_sample(result.json)) continue;
    texts += quiet(result.name) + sample(shown(result.json["prompt"]) + shown(result.json["text"]));
  }
  if (!run.why_no_samples.empty()) texts += quiet("no samples: " + run.why_no_samples);
  return texts;
}

/// How a report names what a request asks for.
std::string described(const SampleRequest& request) {
  return "Written by each model as it is now, at temperature " + rounded(request.temperature) +
         ", from the " + grouped(request.top_k) + " most probable tokens, at most " +
         grouped(request.tokens) + " of them, " +
         (request.prompt.empty() ? "from an empty prompt" : "behind the prompt that begins each");
}

/// The parts of all models in the order of the computation.
std::vector<std::string> parts_of(const Runs& runs) {
  std::vector<std::string> parts;
  for (const RunRecord& run : runs) {
    if (!run.model) continue;
    for (const PartSize& part : run.model->parts) {
      if (std::ranges::find(parts, part.part) == parts.end()) parts.push_back(part.part);
    }
  }
  return parts;
}

/// A row with what `value` says of each model.
template <class Value>
TableRow row_of_models(const Runs& runs, const std::string& name, const Value& value) {
  TableRow row{{name}};
  for (const RunRecord& run : runs) row.cells.emplace_back(run.model ? value(run) : "–");
  return row;
}

std::string parameters_of(const ModelFacts& model, const std::string& part) {
  const auto found = std::ranges::find(model.parts, part, &PartSize::part);
  return found == model.parts.end() ? "–" : grouped(found->parameters);
}

}  // namespace

Html overview(const Runs& runs) {
  std::vector<TableRow> rows;
  Html notes;
  for (size_t i = 0; i < runs.size(); ++i) {
    rows.push_back(overview_row(runs, i));
    notes += remarks(runs[i]);
  }
  return table({"run", "parameters", "steps", "tokens", "training loss", "validation loss",
                "perplexity", "per word", "bits per byte", "best at step", "tokens/s", "time"},
               rows) +
         notes;
}

Html evaluations(const Runs& runs) {
  Html all = validations(runs);
  for (const std::string& name : result_names(runs)) {
    std::vector<Json> objects;
    for (const RunRecord& run : runs) objects.push_back(result_named(run, name));
    std::vector<TableRow> rows = compared(objects);
    for (TableRow& row : rows) row.is_marked = false;
    all += element("h3", name) + table(heads_of(runs), rows);
  }
  return all;
}

Html samples(const Runs& runs, const SampleRequest& request) {
  Html all;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Html texts = samples_of(runs[i]);
    if (!texts.is_empty()) all += element("h3", label_of(runs, i)) + texts;
  }
  return all.is_empty() || request.samples == 0 ? all : quiet(described(request)) + all;
}

Html sizes(const Runs& runs) {
  if (std::ranges::none_of(runs, [](const RunRecord& run) { return run.model.has_value(); })) {
    return {};
  }
  std::vector<TableRow> rows;
  const auto add = [&](const std::string& name, const auto& value) {
    rows.push_back(row_of_models(runs, name, value));
  };
  for (const std::string& part : parts_of(runs)) {
    add(part, [&](const RunRecord& run) { return parameters_of(*run.model, part); });
  }
  add("parameters", [](const RunRecord& run) { return grouped(run.model->parameters); });
  add("sequence length", [](const RunRecord& run) { return grouped(run.model->length); });
  add("forward FLOPs per token",
      [](const RunRecord& run) { return rounded(run.model->forward_flops_per_token); });
  add("training FLOPs per token",
      [](const RunRecord& run) { return rounded(run.model->training_flops_per_token); });
  add("FLOPs of the training", [](const RunRecord& run) {
    return rounded(run.model->training_flops_per_token * static_cast<double>(run.state.tokens));
  });
  add("bytes of state", [](const RunRecord& run) { return grouped(run.model->state_bytes); });
  return table(heads_of(runs), rows);
}

Html machines(const Runs& runs) {
  std::vector<Html> heads = {""};
  std::vector<Json> objects;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const Json& machine : runs[i].machines) {
      heads.push_back(label_of(runs, i));
      objects.push_back(machine);
    }
  }
  if (objects.empty()) return quiet("Not recorded: no run has a machines.jsonl.");
  return table(heads, compared(objects));
}

Html configurations(const Runs& runs) {
  std::vector<Json> objects;
  for (const RunRecord& run : runs) objects.push_back(parse_json(run.config.to_json(), "[report]"));
  const std::vector<TableRow> rows = compared(objects);
  std::vector<TableRow> different, same;
  for (const TableRow& row : rows) (row.is_marked ? different : same).push_back(row);
  if (different.empty()) return table(heads_of(runs), rows);
  for (TableRow& row : different) row.is_marked = false;
  return element("h3", "What differs") + table(heads_of(runs), different) +
         folded("What is the same", table(heads_of(runs), same));
}

std::string report_page(const Runs& runs, const SampleRequest& request) {
  std::string names;
  for (const RunRecord& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  const Html content =
      element("h1", names) + "\n" + overview(runs) + section("Training", curves(runs)) +
      section("Gates on the validation text", gates(runs)) +
      section("Evaluation", evaluations(runs)) + section("Samples", samples(runs, request)) +
      element("div",
              section("Size", sizes(runs)) + section("Machine and versions", machines(runs)) +
                  section("Configuration", configurations(runs)),
              {{"class", "columns"}}) +
      quiet("Written by regla " REGLA_VERSION ". Numbers are the runs' own; losses are in nats.");
  return page(names + " – regla", content);
}

}  // namespace regla::app
