#include "app/command.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "app/options.h"
#include "backends/backend.h"
#include "text/unicode.h"
#include "training/progress.h"

namespace regla::app {

Device opened_device(const std::string& name) {
  const Device device = Device::named(name);
  open_device(device);
  return device;
}

std::string fate_of_invalid(const Tokenizer& tokenizer) {
  return tokenizer.replaces_invalid() ? "each became U+FFFD" : "kept as they are";
}

void SampleArguments::add_to(CLI::App& command) {
  add_text(command, "--data", data, "folder with the files of splits, or one file", "FILE");
  add_split(command, split);
  add_kind(command, text);
  add_number(command, "--sequences", sequences,
             "sequences to look at, evenly spaced over the split");
}

TextSample SampleArguments::sample(const Model& model) const {
  check(!data.empty(), "[analyse] expected --data PATH");
  const Corpus corpus = Corpus::open(data, text.empty() ? model.config.text : text);
  const TokenStream tokens = tokenize_split(corpus, split_named(split), *model.tokenizer);
  return sample_text(tokens, model.tokenizer->end_of_text(), sequences,
                     model.config.model.sequence_length, model.config.reset_at_documents);
}

Split split_named(const std::string& name) {
  return name == "train" ? Split::Train : name == "test" ? Split::Test : Split::Valid;
}

void InferenceArguments::add_to(CLI::App& command) {
  const auto names = names_of(Precision{});
  add_choice(command, "--precision", precision, {names.begin(), names.end()},
             "what to compute in; default: as the run was trained");
  add_choice(command, "--weights", weights, {"f32", "bf16"},
             "how weights are kept in memory: bf16 halves what each new token reads; default: as "
             "products read them");
  add_device(command, device);
}

Model InferenceArguments::load(const std::string& run) const {
  std::optional<Precision> asked;
  if (!precision.empty()) asked = named_value<Precision>(precision);
  Model model = load_model(run, opened_device(device), asked);
  // Products in BF16 read nothing else; masters are for training.
  const bool is_narrow =
      weights == "bf16" || (weights.empty() && model.decoder->dtype() == DType::BF16);
  if (is_narrow || !weights.empty()) {
    model.decoder->store_weights(is_narrow ? DType::BF16 : DType::F32);
  }
  return model;
}

std::string json_text(const Json& value, int indent) {
  // In JSON a line's end stands between values only.
  return printable(value.dump(indent, ' ', false, Json::error_handler_t::replace), "\n");
}

void print_json(const Json& value, int indent) {
  std::printf("%s\n", json_text(value, indent).c_str());
}

void print_line(std::FILE* out, std::string_view text) {
  std::fprintf(out, "%s\n", printable(text).c_str());
}

void print_row(const std::string& name, const std::string& value) {
  constexpr size_t kColumn = 22;
  const std::string blanks(kColumn - std::min(kColumn, name.size()), ' ');
  print_line(stdout, name + blanks + " " + value);
}

Json memory_json(std::optional<double> tokens) {
  if (!tokens) return nullptr;
  return std::isinf(*tokens) ? Json("infinite") : Json(*tokens);
}

std::string memory_text(const Json& memory) {
  if (memory.is_null()) return "n/a";
  return memory.is_string() ? memory.get<std::string>()
                            : rounded(memory.get<double>(), 4) + " tokens";
}

namespace {

/// At most ten times a second.
void show_live(const std::string& line) {
  static std::chrono::steady_clock::time_point next;
  const auto now = std::chrono::steady_clock::now();
  if (now < next || ::isatty(::fileno(stderr)) != 1) return;
  next = now + std::chrono::milliseconds(100);
  std::fprintf(stderr, "\r%s\033[K", fitted(line, columns_of(stderr)).c_str());
}

}  // namespace

void show_scoring(int64_t done, int64_t total) {
  show_live("scored " + grouped(done) + " of " + grouped(total) + " tokens");
}

void show_requests(const std::string& task, int64_t done, int64_t total) {
  show_live(task + ": scored " + grouped(done) + " of " + grouped(total) + " requests");
}

void show_steps(int64_t done, int64_t total) {
  show_live("step " + grouped(done) + " of " + grouped(total));
}

void end_scoring() {
  if (::isatty(::fileno(stderr)) == 1) std::fputs("\r\033[K", stderr);
}

std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  const int64_t first = number < 0 ? 1 : 0;
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > first; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

std::string rounded(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

std::string duration_text(double seconds) {
  if (!(std::abs(seconds) < 1e15)) return rounded(seconds) + " s";
  const int64_t all = std::llround(seconds);
  const auto two = [](int64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  if (all >= 3600) return grouped(all / 3600) + " h " + two(all / 60 % 60) + " min";
  if (all >= 60) return std::to_string(all / 60) + " min " + two(all % 60) + " s";
  return std::to_string(all) + " s";
}

}  // namespace regla::app
