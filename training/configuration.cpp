#include "training/configuration.h"

#include <algorithm>
#include <limits>

#include "core/check.h"
#include "core/numbers.h"
#include "models/mixer_json.h"
#include "training/stage_json.h"
#include "training/stages.h"

namespace regla {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();
constexpr uint64_t kSizeLimit = uint64_t{1} << 24;  // bytes; a layer's mixer takes about a thousand
constexpr std::string_view kPrefix = "[config] ";

void check_count(const char* key, int64_t value, int64_t least, int64_t most = kLargest) {
  check(value >= least && value <= most, "[config] expected ", key, " from ", least, " to ", most,
        ", got ", value);
}

void check_at_least_0(const char* key, double value) {
  check(value >= 0, "[config] expected ", key, " of at least 0, got ", value);
}

void check_optimizer(const TrainingConfig& c) {
  check_at_least_0("learning_rate", c.learning_rate);
  check_at_least_0("weight_decay", c.weight_decay);
  check_at_least_0("grad_clip", c.grad_clip);
  check(c.final_learning_rate >= 0 && c.final_learning_rate <= 1,
        "[config] expected final_learning_rate in [0, 1], got ", c.final_learning_rate);
  check(c.beta1 >= 0 && c.beta1 < 1, "[config] expected beta1 in [0, 1), got ", c.beta1);
  check(c.beta2 >= 0 && c.beta2 < 1, "[config] expected beta2 in [0, 1), got ", c.beta2);
  check(c.epsilon > 0, "[config] expected epsilon above 0, got ", c.epsilon);
}

/// The keys inside a mixer, to suggest to who wrote one at the top level.
std::vector<std::string> mixer_keys() {
  std::vector<std::string> keys;
  const MixerConfig mixer;
  fields(mixer, [&](const char* name, const auto&, const char*) {
    keys.push_back(std::string("mixer.") + name);
  });
  return keys;
}

/// A configuration that may be one of earlier versions: they called the precision `dtype`, f32 or
/// f64, and activation_checkpointing was true or false.
Json of_this_version(Json config) {
  const auto checkpointing = config.find("activation_checkpointing");
  if (checkpointing != config.end() && checkpointing->is_boolean()) {
    *checkpointing = checkpointing->get<bool>() ? "blocks" : "cheap";
  }
  const auto former = config.find("dtype");
  if (former == config.end()) return config;
  check(!config.contains("precision"),
        "[config] expected precision alone, got dtype too, which it was called once");
  const Json value = *former == "f32" ? Json("fp32") : *former;
  config.erase("dtype");
  config["precision"] = value;
  return config;
}

TrainingConfig parsed(std::string_view text) {
  TrainingConfig config;
  Json json = parse_json(text, "[config]");
  if (json.is_object()) json = of_this_version(std::move(json));
  read_fields(json, "", config, mixer_keys());
  return config;
}

std::vector<std::string> split_path(std::string_view key) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= key.size();) {
    const size_t dot = std::min(key.find('.', start), key.size());
    parts.emplace_back(key.substr(start, dot - start));
    start = dot + 1;
  }
  return parts;
}

bool is_index(std::string_view part) {
  return !part.empty() && part.size() < 10 &&
         std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Sets the value at a path below `node`, whose own full name is `where`.
void assign(Json& node, std::span<const std::string> path, const Json& value,
            const std::string& where) {
  if (path.empty()) {
    node = value;
    return;
  }
  if (node.is_array() && !is_index(path[0])) {
    for (size_t i = 0; i < node.size(); ++i) {
      assign(node[i], path, value, where + "." + std::to_string(i));
    }
    return;
  }
  const std::string inner = where.empty() ? path[0] : where + "." + path[0];
  if (node.is_array()) {
    const size_t index = std::stoul(path[0]);
    check(index < node.size(), "[config] expected an index below ", node.size(), " for ", where,
          ", got ", index);
    assign(node[index], path.subspan(1), value, inner);
    return;
  }
  const bool is_mixer = where.starts_with("mixer");
  if (node.is_string() && is_mixer) node = Json::object({{"type", node}});
  if (node.is_null()) node = Json::object();
  check(node.is_object(), "[config] cannot set ", shown_key(inner), ": ", shown_key(where), " is ",
        shown(node));
  check(!is_mixer || !is_index(path[0]), "[config] cannot set ", shown_key(inner), ": ", where,
        " is one mixer for all layers, not a list");
  assign(node[path[0]], path.subspan(1), value, inner);
}

Json override_value(std::string_view text) {
  // What can only be JSON must be JSON; anything else may be a plain word or a path.
  const bool is_json = text.starts_with('{') || text.starts_with('[') || text.starts_with('"');
  if (is_json || Json::accept(text)) return parse_json(text, "[config]");
  // Numbers that JSON does not know, such as .001.
  if (const auto number = parse_unsigned(text)) return *number;
  if (const auto number = parse_integer(text)) return *number;
  if (const auto number = parse_real(text)) return *number;
  return std::string(text);
}

std::string type_of(bool) { return "true or false"; }
std::string type_of(int64_t) { return "integer"; }
std::string type_of(uint64_t) { return "integer"; }
std::string type_of(double) { return "number"; }
std::string type_of(const std::string&) { return "string"; }
std::string type_of(const std::vector<MixerConfig>&) { return "name, object or list"; }
std::string type_of(const std::vector<StageConfig>&) { return "list"; }
template <NamedEnum E>
std::string type_of(E) {
  std::string list;
  for (const std::string_view name : names_of(E{})) {
    list += (list.empty() ? "`" : ", `") + std::string(name) + "`";
  }
  return list;
}

template <class T>
std::string default_text(const T& value) {
  return "`" + dumped(to_json_value(value)) + "`";
}
std::string default_text(const std::vector<MixerConfig>&) { return "`\"regla\"`"; }

template <class Config>
void describe(std::string& table, const std::string& prefix, const Config& config) {
  fields(config, [&](const char* name, const auto& member, const char* meaning) {
    table += "| `" + prefix + name + "` | " + type_of(member) + " | " + default_text(member) +
             " | " + meaning + " |\n";
    if constexpr (std::is_same_v<decltype(member), const std::vector<MixerConfig>&>) {
      describe(table, std::string(name) + ".", member.front());
    }
    if constexpr (std::is_same_v<decltype(member), const std::vector<StageConfig>&>) {
      describe(table, std::string(name) + ".", StageConfig{});
    }
  });
}

/// A state that is carried through a whole text must not grow with it.
void check_carried(const ModelConfig& model) {
  for (const MixerConfig& mixer : model.mixer) {
    check(
        mixer.type != MixerType::Softmax || mixer.window > 0,
        "[config] carry_state needs mixer.window above 0 for softmax attention, whose cache grows "
        "with the text otherwise");
    check(mixer.redraw_every == 0,
          "[config] carry_state needs mixer.redraw_every = 0: what a state holds belongs to the "
          "random features it was written with");
  }
}

/// Errors name the stage and its key.
void check_stage(const TrainingConfig& config, size_t index) {
  const StageConfig& stage = config.stages[index];
  const std::string where = "stages." + std::to_string(index);
  check_count((where + ".steps").c_str(), stage.steps, 1);
  check(stage.temperature > 0, "[config] expected ", where, ".temperature above 0, got ",
        stage.temperature);
  check_count((where + ".batch_size").c_str(), stage.batch_size, 0);
  check_count((where + ".sequence_length").c_str(), stage.sequence_length, 0);
  check(stage.objective == StageObjective::Train || !config.teacher.empty(), "[config] ", where,
        " has the objective ", name_of(stage.objective), ", which needs a teacher");
  try {
    config_within(config, stage).validate();
  } catch (const Error& error) {
    std::string_view reason = error.what();
    if (reason.starts_with(kPrefix)) reason.remove_prefix(kPrefix.size());
    fail(kPrefix, where, ": ", reason);
  }
}

}  // namespace

EvaluationOptions TrainingConfig::evaluation() const {
  return {.context = carry_state ? Context::Carried : Context::Window,
          .length = model.sequence_length,
          .batch = eval_batch_size > 0 ? eval_batch_size : batch_size,
          .reset_at_documents = reset_at_documents,
          .max_batches = 0};
}

TrainingConfig TrainingConfig::resolved() const {
  TrainingConfig full = *this;
  full.model = model.resolved();
  if (full.eval_batch_size == 0) full.eval_batch_size = batch_size;
  for (StageConfig& stage : full.stages) {
    if (stage.batch_size == 0) stage.batch_size = batch_size;
    if (stage.sequence_length == 0) stage.sequence_length = model.sequence_length;
  }
  return full;
}

void TrainingConfig::validate() const {
  model.validate();
  Device::named(device);  // an Error for what is no device
  check_count("steps", steps, 0);
  check_count("batch_size", batch_size, 1);
  check_count("micro_batches", micro_batches, 1);
  check(batch_size % micro_batches == 0,
        "[config] expected micro_batches to divide batch_size, got micro_batches ", micro_batches,
        " and batch_size ", batch_size);
  check_count("warmup_steps", warmup_steps, 0);
  check_optimizer(*this);
  if (carry_state) check_carried(model);
  check(text.empty() || text == "tokens" || text == "raw" || text == "txt",
        "[config] expected text to be tokens, raw, txt or empty, got ", quoted(text));
  check(!tokenizer.empty(), "[config] expected tokenizer to be byte, bpe or a path, got \"\"");
  check_count("vocab_size", vocab_size, 1);
  check_count("log_every", log_every, 1);
  check_count("eval_every", eval_every, 0);
  check_count("eval_batches", eval_batches, 0);
  check_count("eval_batch_size", eval_batch_size, 0);
  check_count("checkpoint_every", checkpoint_every, 0);
  check_count("keep_last", keep_last, 1);
  check_count("threads", threads, 0, 4096);
  int64_t in_stages = 0;
  for (size_t i = 0; i < stages.size(); ++i) {
    check_stage(*this, i);
    in_stages += stages[i].steps;
  }
  check(in_stages <= kLargest, "[config] expected stages of at most ", kLargest,
        " steps together, got ", in_stages);
}

std::string TrainingConfig::to_json() const { return dumped(write_fields(resolved()), 2) + "\n"; }

TrainingConfig from_json(std::string_view text) {
  TrainingConfig config = parsed(text);
  config.validate();
  return config;
}

std::string apply_override(std::string_view text, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  check(equals != std::string_view::npos, "[config] expected key=value, got ", quoted(assignment));
  const std::vector<std::string> path = split_path(assignment.substr(0, equals));
  check(std::find(path.begin(), path.end(), "") == path.end(),
        "[config] expected a key before =, got ", quoted(assignment));
  check(path.size() <= kMaxJsonDepth, "[config] expected at most ", kMaxJsonDepth,
        " parts of a key, got ", path.size(), " in ", quoted(assignment));
  Json config = parse_json(text, "[config]");
  check(config.is_object(), "[config] expected an object, got ", shown(config));
  config = of_this_version(std::move(config));
  if (path.front() == "dtype") config.erase("precision");
  assign(config, path, override_value(assignment.substr(equals + 1)), "");
  return dumped(of_this_version(std::move(config)), 2);
}

std::vector<std::string> assignments_in(const std::filesystem::path& path) {
  const std::string where = "[config] " + path.string() + ":";
  const Json json = parse_json(read_file(path, kSizeLimit, NamedBy::User), where);
  check(json.is_object(), where, " expected an object, got ", shown(json));
  std::vector<std::string> assignments;
  for (const auto& item : json.items()) {
    assignments.push_back(item.key() + "=" + dumped(item.value()));
  }
  return assignments;
}

TrainingConfig read_config(const std::filesystem::path& path,
                           std::span<const std::string> overrides, NamedBy named_by) {
  std::string text = read_file(path, kSizeLimit, named_by);
  try {
    parsed(text);
    if (overrides.empty()) return from_json(text);
  } catch (const Error& error) {
    std::string_view reason = error.what();
    if (reason.starts_with(kPrefix)) reason.remove_prefix(kPrefix.size());
    fail(kPrefix, path.string(), ": ", reason);
  }
  for (const std::string& assignment : overrides) text = apply_override(text, assignment);
  return from_json(text);
}

std::string describe_config() {
  std::string table = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
  const TrainingConfig defaults;
  describe(table, "", defaults);
  return table;
}

}  // namespace regla
