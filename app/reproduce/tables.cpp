#include <algorithm>
#include <set>

#include "app/command.h"
#include "app/reproduce/experiment.h"
#include "app/reproduce/runs.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kShots[] = {0, 5};

/// Where the results of a run lie: with it, but for a teacher from elsewhere.
fs::path results_of(const Setting& setting, const Variant& variant, int64_t seed) {
  if (is_given(setting, variant)) return setting.folder / "teacher";
  return folder_of_run(setting, variant, seed);
}

/// Seeds of a variant. A teacher from elsewhere is one.
int64_t seeds_of(const Setting& setting, const Variant& variant) {
  return is_given(setting, variant) ? 1 : setting.seeds;
}

Words eval_words(const Setting& setting, const Variant& variant, int64_t seed) {
  return {"eval", folder_of_run(setting, variant, seed).string(), "--json", "--device",
          setting.device};
}

Step perplexity_step(const Setting& setting, const Variant& variant, int64_t seed) {
  Words words = eval_words(setting, variant, seed);
  words.insert(words.end(), {"--data", setting.data, "--split", setting.split});
  return {.words = words,
          .result = results_of(setting, variant, seed) / (setting.split + ".json"),
          .report = {}};
}

Step tasks_step(const Setting& setting, const Variant& variant, int64_t seed, int64_t shots) {
  std::string tasks;
  for (const TaskColumn& column : task_columns()) {
    tasks.append(tasks.empty() ? "" : ",").append(column.task);
  }
  Words words = eval_words(setting, variant, seed);
  words.insert(words.end(), {"--tasks", tasks, "--task-data", setting.task_data, "--shots",
                             std::to_string(shots)});
  if (setting.limit) words.insert(words.end(), {"--limit", std::to_string(*setting.limit)});
  const std::string file = "tasks-" + std::to_string(shots) + ".json";
  return {.words = words, .result = results_of(setting, variant, seed) / file, .report = {}};
}

using Evaluations = std::function<std::vector<Step>(const Setting&, const Variant&, int64_t seed)>;

/// The works of some variants, teachers of linearised ones first.
std::vector<Work> works_of(const Setting& setting, std::vector<std::string_view> names,
                           const Evaluations& evaluations) {
  const bool has_students = std::ranges::any_of(
      names, [](std::string_view name) { return variant_named(name).linearised; });
  const bool shows_teacher = std::ranges::find(names, kTeacher) != names.end();
  if (has_students && !shows_teacher) names.insert(names.begin(), kTeacher);
  std::vector<Work> works;
  std::set<std::string_view> seen;
  for (const std::string_view name : names) {
    if (!seen.insert(name).second) continue;
    const Variant& variant = variant_named(name);
    const bool is_shown = name != kTeacher || shows_teacher;
    for (int64_t seed = 0; seed < seeds_of(setting, variant); ++seed) {
      works.push_back(
          work_of_run(setting, variant, seed,
                      is_shown ? evaluations(setting, variant, seed) : std::vector<Step>{}));
    }
  }
  return works;
}

/// How runs were trained, for whoever reads the numbers.
Json settings_of(const Setting& setting) {
  const TrainingConfig config =
      from_json(config_of_run(setting, variant_named("regla"), 0)).resolved();
  const ModelConfig& model = config.model;
  return {
      {"scale", std::string(setting.scale->name) + ": " + std::to_string(model.layers) +
                    " layers of width " + std::to_string(model.hidden) + ", " +
                    grouped(config.steps) + " updates of " + std::to_string(config.batch_size) +
                    " x " + std::to_string(model.sequence_length) + " tokens, learning rate " +
                    rounded(config.learning_rate) + ", " + std::string(name_of(config.precision))},
      {"data", name_of_data(setting, Split::Train)},
      {"tokens", config.tokenizer == "bpe" ? "BPE of " + grouped(config.vocab_size) + " entries"
                                           : fs::path(config.tokenizer).filename().string()},
      {"seeds", seeds_text(setting.seeds)}};
}

/// The numbers of a row, one of each seed that has them, by `read`.
std::vector<double> values_of(const Setting& setting, const Variant& variant,
                              const std::function<Step(int64_t seed)>& step,
                              const std::function<double(const Json&)>& read,
                              std::vector<Finding>& findings) {
  std::vector<double> values;
  for (int64_t seed = 0; seed < seeds_of(setting, variant); ++seed) {
    const std::optional<Finding> finding = found(step(seed));
    if (!finding) continue;  // diverged
    values.push_back(read(finding->result));
    findings.push_back(*finding);
  }
  return values;
}

Comparison compare_perplexities(const Setting& setting, const PerplexityTable& table) {
  Comparison comparison;
  comparison.title = table.title;
  comparison.paper_is = "paper";
  comparison.settings = settings_of(setting);
  comparison.settings["split"] = setting.split;
  std::vector<Finding> findings;
  for (const PerplexityRow& row : table.rows) {
    const Variant& variant = variant_named(row.variant);
    Cell cell = {.row = std::string(row.label), .column = "perplexity", .values = {}, .paper = {}};
    cell.values = values_of(
        setting, variant, [&](int64_t seed) { return perplexity_step(setting, variant, seed); },
        [](const Json& result) { return result.at("ppl").get<double>(); }, findings);
    if (row.paper > 0) cell.paper = row.paper;
    comparison.cells.push_back(cell);
  }
  comparison.settings["machine"] = machines_of(findings);
  comparison.notes = {table.notes.begin(), table.notes.end()};
  comparison.notes.emplace_back(
      "Perplexities are per token of the tokenizer named above. The paper's are of models of 160 "
      "million parameters on WikiText-103 after 50,000 updates of 8 sequences; at another scale "
      "only the order can be compared.");
  return comparison;
}

/// The mean over the tasks for each seed, where all have that seed.
Cell average(const std::vector<Cell>& cells, const std::string& row) {
  Cell mean = {.row = row, .column = "mean", .values = {}, .paper = 0};
  size_t seeds = cells.at(0).values.size();
  for (const Cell& cell : cells) seeds = std::min(seeds, cell.values.size());
  mean.values.resize(seeds);
  const auto count = static_cast<double>(cells.size());
  for (const Cell& cell : cells) {
    for (size_t i = 0; i < seeds; ++i) mean.values[i] += cell.values[i] / count;
    *mean.paper += *cell.paper / count;
  }
  return mean;
}

Comparison compare_tasks(const Setting& setting) {
  Comparison comparison;
  comparison.title = "Table 5: tasks in 0 and 5 shots, percent right";
  comparison.settings = settings_of(setting);
  if (setting.limit) comparison.settings["documents of each task"] = *setting.limit;
  std::vector<Finding> findings;
  for (const int64_t shots : kShots) {
    for (const TaskRow& row : task_rows()) {
      const Variant& variant = variant_named(row.variant);
      const std::string name = std::to_string(shots) + "-shot, " + std::string(row.label);
      const auto& paper = shots == 0 ? row.without_examples : row.with_five;
      std::vector<Cell> cells;
      for (size_t i = 0; i < task_columns().size(); ++i) {
        const TaskColumn& column = task_columns()[i];
        Cell cell = {.row = name, .column = std::string(column.label), .values = {}, .paper = {}};
        cell.values = values_of(
            setting, variant,
            [&](int64_t seed) { return tasks_step(setting, variant, seed, shots); },
            [&](const Json& result) {
              return 100 * result.at("tasks")
                               .at(std::string(column.task))
                               .at("scores")
                               .at(std::string(column.metric))
                               .at("value")
                               .get<double>();
            },
            findings);
        cell.paper = paper[i];
        cells.push_back(cell);
      }
      cells.push_back(average(cells, name));
      comparison.cells.insert(comparison.cells.end(), cells.begin(), cells.end());
    }
  }
  comparison.settings["machine"] = machines_of(findings);
  comparison.notes = {task_notes().begin(), task_notes().end()};
  return comparison;
}

Experiment task_table(const Setting& setting) {
  check(!setting.task_data.empty(), "[reproduce] table 5 needs --task-data FOLDER");
  std::vector<std::string_view> names;
  for (const TaskRow& row : task_rows()) names.push_back(row.variant);
  return {.name = "table5",
          .works = works_of(setting, names,
                            [](const Setting& s, const Variant& variant, int64_t seed) {
                              return std::vector<Step>{tasks_step(s, variant, seed, kShots[0]),
                                                       tasks_step(s, variant, seed, kShots[1])};
                            }),
          .compare = [&setting] { return compare_tasks(setting); }};
}

}  // namespace

Experiment table(const Setting& setting, int64_t number) {
  need_data(setting);
  if (number == 5) return task_table(setting);
  const PerplexityTable& table = perplexity_table(number);
  std::vector<std::string_view> names;
  for (const PerplexityRow& row : table.rows) names.push_back(row.variant);
  return {.name = "table" + std::to_string(number),
          .works = works_of(setting, names,
                            [](const Setting& s, const Variant& variant, int64_t seed) {
                              return std::vector<Step>{perplexity_step(s, variant, seed)};
                            }),
          .compare = [&setting, &table] { return compare_perplexities(setting, table); }};
}

void need_data(const Setting& setting) {
  check(!setting.data.empty(), "[reproduce] expected --data PATH");
}

std::string seeds_text(int64_t seeds) {
  return seeds == 1 ? "0" : "0 to " + std::to_string(seeds - 1);
}

std::string name_of_data(const Setting& setting, Split split) {
  return fs::path(Corpus::open(setting.data).file(split)).filename().string();
}

std::string machines_of(const std::vector<Finding>& findings) {
  std::set<std::string> machines;
  for (const Finding& finding : findings) machines.insert(finding.machine);
  std::string text;
  for (const std::string& machine : machines) text += (text.empty() ? "" : "; ") + machine;
  return text.empty() ? "none" : text;
}

}  // namespace regla::app
