#include "storage/json_fields.h"

#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace regla {
namespace {

constexpr size_t kShownLength = 60;

/// "line 3, column 14" of a byte offset that counts from 1.
std::string position_in(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, byte == 0 ? 0 : std::min(byte - 1, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
  return "line " + std::to_string(line) + ", column " + std::to_string(before.size() - start + 1);
}

/// The reason inside a parser's message: no codes, no position, no echo of the text.
std::string reason_of(std::string_view what) {
  const size_t start = what.find("syntax error");
  if (start != std::string_view::npos) what = what.substr(start);
  const size_t echo = what.find("; last read");
  if (echo == std::string_view::npos) return std::string(what);
  const size_t expected = what.find("; expected", echo);
  std::string reason(what.substr(0, echo));
  if (expected != std::string_view::npos) reason += what.substr(expected);
  return reason;
}

/// Builds a value from what the parser reads. The package's own builder looks each key up among
/// all keys before it, which takes minutes for a large vocabulary.
class JsonBuilder : public nlohmann::json_sax<Json> {
 public:
  JsonBuilder(std::string_view text, std::string_view who) : text_(text), who_(who) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // not in text
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool end_object() override {
    check_keys(open_.back()->get_ref<const Json::object_t&>());
    return end_array();
  }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const auto* syntax = dynamic_cast<const nlohmann::detail::parse_error*>(&error);
    if (syntax == nullptr) fail(who_, " malformed JSON: a number that is out of range");
    fail(who_, " malformed JSON at ", position_in(text_, syntax->byte), ": ",
         reason_of(error.what()));
  }

 private:
  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json container) {
    check(open_.size() < kMaxJsonDepth, who_, " more than ", kMaxJsonDepth, " levels of nesting");
    open_.push_back(&place(std::move(container)));
    return true;
  }

  /// Where the value now is, behind all others of the container that is open.
  Json& place(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back();
    if (parent.is_array()) {
      auto& list = parent.get_ref<Json::array_t&>();
      return list.emplace_back(std::move(value));
    }
    auto& members = parent.get_ref<Json::object_t&>();
    return members.emplace_back(std::move(key_), std::move(value)).second;
  }

  void check_keys(const Json::object_t& members) const {
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const auto& member : members) keys.push_back(member.first);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) fail(who_, " the key ", quoted(*twice), " is given twice");
  }

  std::string_view text_, who_;
  Json root_;
  std::vector<Json*> open_;  // containers that are not complete, from the outermost
  std::string key_;          // of the next value
};

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

/// What other programs call the same keys.
constexpr std::array<std::array<std::string_view, 2>, 44> kOtherNames = {{
    {"lr", "learning_rate"},
    {"max_lr", "learning_rate"},
    {"min_lr", "final_learning_rate"},
    {"lr_schedule", "schedule"},
    {"lr_scheduler", "schedule"},
    {"lr_scheduler_type", "schedule"},
    {"warmup", "warmup_steps"},
    {"warmup_iters", "warmup_steps"},
    {"iters", "steps"},
    {"max_iters", "steps"},
    {"max_steps", "steps"},
    {"num_steps", "steps"},
    {"bs", "batch_size"},
    {"batch", "batch_size"},
    {"gradient_accumulation_steps", "micro_batches"},
    {"grad_accum", "micro_batches"},
    {"accumulation", "micro_batches"},
    {"wd", "weight_decay"},
    {"decay", "weight_decay"},
    {"eps", "epsilon"},
    {"clip", "grad_clip"},
    {"max_grad_norm", "grad_clip"},
    {"eval_interval", "eval_every"},
    {"save_every", "checkpoint_every"},
    {"save_steps", "checkpoint_every"},
    {"precision", "dtype"},
    {"num_threads", "threads"},
    {"n_layer", "layers"},
    {"num_layers", "layers"},
    {"num_hidden_layers", "layers"},
    {"depth", "layers"},
    {"dim", "hidden"},
    {"d_model", "hidden"},
    {"n_embd", "hidden"},
    {"width", "hidden"},
    {"n_head", "heads"},
    {"num_heads", "heads"},
    {"d_ff", "mlp"},
    {"intermediate_size", "mlp"},
    {"attention", "mixer"},
    {"seq_len", "sequence_length"},
    {"ctx", "sequence_length"},
    {"context_length", "sequence_length"},
    {"block_size", "sequence_length"},
}};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view who) {
  JsonBuilder builder(text, who);
  Json::sax_parse(text, &builder);
  return builder.take();
}

std::optional<Json> object_in(std::string_view line) {
  try {
    Json object = parse_json(line, "[log]");
    if (object.is_object()) return object;
  } catch (const Error&) {  // a line that was cut off
  }
  return std::nullopt;
}

std::optional<int64_t> step_in(const Json& object) {
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kShownLength) text = text.substr(0, kShownLength - 3) + "...";
  return text;
}

std::string shown_key(std::string_view key) {
  const std::string text = quoted(key);
  return text.substr(1, text.size() - 2);
}

std::string dumped(const Json& value, int indent) {
  try {
    return value.dump(indent);
  } catch (const Json::exception&) {
    fail("[json] expected text in UTF-8, got ", shown(value));
  }
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  size_t smallest = std::numeric_limits<size_t>::max();
  // Edit distance takes time in the product of the lengths: nobody mistypes a key this long.
  const std::string key = lower_case(word.substr(0, 200));
  for (const auto& [name, meant] : kOtherNames) {
    if (key == name && std::find(known.begin(), known.end(), meant) != known.end()) {
      return std::string(meant);
    }
  }
  for (const std::string& name : known) {
    const std::string_view last = std::string_view(name).substr(name.rfind('.') + 1);
    size_t distance = std::min(edit_distance(key, name), edit_distance(key, last));
    // A beginning that was not finished.
    if (key.size() > 2 && (name.starts_with(key) || last.starts_with(key))) {
      distance = std::min<size_t>(distance, 1);
    }
    if (distance < smallest) {
      smallest = distance;
      best = name;
    }
  }
  return best;
}

void fail_unknown_key(std::string_view key, const std::vector<std::string>& known) {
  fail("[config] unknown key ", shown_key(key), "; the nearest known key is ", nearest(key, known));
}

void read_value(const Json& json, std::string_view key, bool& value) {
  check(json.is_boolean(), "[config] expected true or false for ", key, ", got ", shown(json));
  value = json.get<bool>();
}

void read_value(const Json& json, std::string_view key, int64_t& value) {
  // 1e5 is an integer too, as long as a double holds it exactly.
  if (json.is_number_float()) {
    const double number = json.get<double>();
    check(std::abs(number) <= 0x1p53 && number == std::floor(number),
          "[config] expected an integer for ", key, ", got ", shown(json));
    value = static_cast<int64_t>(number);
    return;
  }
  check(json.is_number_integer(), "[config] expected an integer for ", key, ", got ", shown(json));
  check(!json.is_number_unsigned() ||
            json.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()),
        "[config] expected at most 2^63 - 1 for ", key, ", got ", shown(json));
  value = json.get<int64_t>();
}

void read_value(const Json& json, std::string_view key, uint64_t& value) {
  if (json.is_number_unsigned()) {
    value = json.get<uint64_t>();
    return;
  }
  // Not by way of int64_t, which would tell of its own limit.
  check(!json.is_number_float() || json.get<double>() < 0x1p63,
        "[config] expected at most 2^64 - 1 for ", key, ", got ", shown(json));
  int64_t number = 0;
  read_value(json, key, number);
  check(number >= 0, "[config] expected ", key, " of at least 0, got ", number);
  value = static_cast<uint64_t>(number);
}

void read_value(const Json& json, std::string_view key, double& value) {
  check(json.is_number(), "[config] expected a number for ", key, ", got ", shown(json));
  value = json.get<double>();
  check(std::isfinite(value), "[config] expected a finite number for ", key, ", got ", shown(json));
}

void read_value(const Json& json, std::string_view key, std::string& value) {
  check(json.is_string(), "[config] expected a string for ", key, ", got ", shown(json));
  value = json.get<std::string>();
}

size_t read_name(const Json& json, std::string_view key, const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  check(json.is_string(), "[config] expected one of ", list, " for ", key, ", got ", shown(json));
  const auto found = std::find(names.begin(), names.end(), json.get<std::string>());
  check(found != names.end(), "[config] expected one of ", list, " for ", key, ", got ",
        shown(json));
  return static_cast<size_t>(found - names.begin());
}

}  // namespace regla
