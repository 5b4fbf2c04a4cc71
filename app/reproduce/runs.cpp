#include "app/reproduce/runs.h"

#include <algorithm>
#include <set>

#include "app/command.h"
#include "storage/files.h"
#include "training/run_folder.h"
#include "training/stage_json.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

/// Keys of a model that a linearised run has from its teacher, and of what follows from text.
bool is_of_teacher(const std::string& assignment) {
  static const std::set<std::string> keys = [] {
    std::set<std::string> all = {"tokenizer", "vocab_size"};
    const ModelConfig config;
    fields(config, [&](const char* name, const auto&, const char*) { all.insert(name); });
    all.erase("dropout");
    all.erase("sequence_length");
    return all;
  }();
  return keys.contains(assignment.substr(0, assignment.find_first_of(".=")));
}

std::string with_assignments(std::string text, const Words& assignments, bool is_linearised) {
  for (const std::string& assignment : assignments) {
    if (!is_linearised || !is_of_teacher(assignment)) text = apply_override(text, assignment);
  }
  return text;
}

/// A mixer as the experiments have it, with the paper's rotation.
Json mixer_of(std::string_view text) {
  const Json mixer = parse_json(text, "[reproduce]");
  Json all = mixer.is_string() ? Json{{"type", mixer}} : mixer;
  all["rope"] = std::string(kRope);
  return all;
}

/// The mixers of all layers, for the key `mixer`.
Json mixers_of(const Variant& variant, int64_t layers) {
  const Json mixer = mixer_of(variant.mixer), softmax = mixer_of(variant_named(kTeacher).mixer);
  if (!variant.alternates) return mixer;
  Json list = Json::array();
  for (int64_t layer = 0; layer < layers; ++layer) {
    list.push_back(layer % 2 == 0 ? softmax : mixer);
  }
  return list;
}

Words linearise_words(const Setting& setting, const Variant& variant, int64_t seed) {
  const Json mixer = mixer_of(variant.mixer);
  const fs::path teacher = folder_of_run(setting, variant_named(kTeacher), seed);
  Words words = {"linearise", teacher.string(), "--mixer", mixer["type"].get<std::string>()};
  for (const auto& [key, value] : mixer.items()) {
    if (key == "type") continue;
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    words.insert(words.end(), {"--set", key + "=" + text});
  }
  words.insert(words.end(),
               {"--layers", variant.alternates ? "alternate" : "all", "--seed",
                std::to_string(seed), "--out", folder_of_run(setting, variant, seed).string()});
  return words;
}

/// An Error where a run was trained otherwise than it would be now.
void check_same(const fs::path& run, const std::string& config) {
  const HeldCheckpoint checkpoint(run);
  const std::string file = checkpoint.path() / "config.json";
  Words assignments;
  const Json keys = parse_json(config, "[reproduce]");
  for (const auto& [key, value] : keys.items()) {
    assignments.push_back(key + "=" + value.dump());
  }
  const Json there = write_fields(read_config(file, {}, NamedBy::Program).resolved());
  const Json asked = write_fields(read_config(file, assignments, NamedBy::Program).resolved());
  std::string changed;
  for (const auto& [key, value] : there.items()) {
    if (key == "device" || key == "threads" || value == asked[key]) continue;
    changed += (changed.empty() ? "" : ", ") + key;
  }
  check(changed.empty(), "[reproduce] ", run.string(), " was trained with other values of ",
        changed, "; use another --out");
}

/// What of a run's training is left.
std::vector<Step> missing_training(const Setting& setting, const Variant& variant, int64_t seed) {
  const fs::path run = folder_of_run(setting, variant, seed);
  const std::string config = config_of_run(setting, variant, seed);
  Words train = {"train",      "--data",   setting.data,  "--out",
                 run.string(), "--device", setting.device};
  const std::optional<TrainingState> state = state_of(run);
  const bool is_begun = state && state->is_begun();
  if (is_begun) {
    check_same(run, config);
    if (state->step >= from_json(config).steps) return {};
    train.insert(train.end(), {"--resume"});
    return {{.words = train, .result = {}, .report = {}}};
  }
  std::vector<Step> steps;
  if (variant.linearised && !state) {
    steps.push_back({.words = linearise_words(setting, variant, seed), .result = {}, .report = {}});
  }
  if (variant.linearised) train.push_back("--resume");
  const fs::path file = config_file(setting, name_of_run(variant, seed));
  train.insert(train.end(), {"--config", file.string()});
  steps.push_back({.words = train, .result = {}, .report = {}});
  return steps;
}

}  // namespace

bool is_given(const Setting& setting, const Variant& variant) {
  return variant.name == kTeacher && !setting.teacher.empty();
}

std::string name_of_run(const Variant& variant, int64_t seed) {
  return std::string(variant.name) + "-" + std::to_string(seed);
}

fs::path folder_of_run(const Setting& setting, const Variant& variant, int64_t seed) {
  if (is_given(setting, variant)) return setting.teacher;
  return setting.folder / name_of_run(variant, seed);
}

std::string config_of_run(const Setting& setting, const Variant& variant, int64_t seed) {
  std::string text(setting.scale->training);
  if (setting.scale->name == "160m" && variant.steps_of_160m > 0) {
    text = apply_override(text, "steps=" + std::to_string(variant.steps_of_160m));
  }
  text = apply_override(text, "seed=" + std::to_string(seed));
  if (variant.linearised) return with_assignments(text, setting.set, true);
  Json config = parse_json(text, "[reproduce]");
  config.update(parse_json(setting.scale->model, "[reproduce]"));
  text = dumped(config);
  const int64_t layers = from_json(with_assignments(text, setting.set, false)).model.layers;
  text = apply_override(text, "mixer=" + mixers_of(variant, layers).dump());
  return with_assignments(text, setting.set, false);
}

std::optional<TrainingState> state_of(const fs::path& run) {
  if (!holds_run(run)) return std::nullopt;
  return read_training_state(HeldCheckpoint(run).path());  // another process may be training it
}

fs::path config_file(const Setting& setting, const std::string& name) {
  return setting.folder / "configs" / (name + ".json");
}

void write_config(const Setting& setting, const std::string& name, const Json& config) {
  const fs::path file = config_file(setting, name);
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  write_file(file, dumped(config, 2) + "\n");
}

Work work_of_run(const Setting& setting, const Variant& variant, int64_t seed,
                 const std::vector<Step>& evaluations) {
  Work work;
  work.name = name_of_run(variant, seed);
  const Variant& teacher = variant_named(kTeacher);
  if (variant.linearised && !is_given(setting, teacher)) work.needs = name_of_run(teacher, seed);
  work.missing = [&setting, &variant, seed, evaluations] {
    std::vector<Step> steps;
    if (!is_given(setting, variant)) steps = missing_training(setting, variant, seed);
    for (const Step& evaluation : evaluations) {
      if (!steps.empty() || !found(evaluation)) steps.push_back(evaluation);
    }
    return steps;
  };
  if (is_given(setting, variant)) return work;
  work.prepare = [&setting, &variant, seed] {
    write_config(setting, name_of_run(variant, seed),
                 parse_json(config_of_run(setting, variant, seed), "[reproduce]"));
  };
  const TrainingConfig config = from_json(config_of_run(setting, variant, seed));
  const auto state = state_of(folder_of_run(setting, variant, seed));
  work.updates = std::max<int64_t>(0, config.steps - (state ? state->step : 0));
  work.tokens = work.updates * config.batch_size * config.model.sequence_length;
  return work;
}

}  // namespace regla::app
