// Figure 5: time and memory of decoding, as `regla bench decode` measures and draws them.

#include <filesystem>

#include "app/command.h"
#include "app/reproduce/experiment.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

struct Kind {
  std::string_view label, mixer;
};
constexpr Kind kKinds[] = {
    {"ReGLA", "regla"}, {"Fast Decay", "fast_decay"}, {"softmax", "softmax"}};

Step decoding_step(const Setting& setting) {
  const fs::path folder = setting.folder / "figure5";
  Words words = {"bench",     "decode", "--out",     folder.string(), "--device", setting.device,
                 "--repeats", "3",      "--longest", "8192",          "--set"};
  const Json model = parse_json(setting.scale->decoding, "[reproduce]");
  for (const auto& [key, value] : model.items()) {
    words.push_back(key + "=" + value.dump());
  }
  words.push_back("mixer.rope=" + std::string(kRope));
  words.insert(words.end(), setting.set.begin(), setting.set.end());
  words.emplace_back("batch_size=1");
  return {.words = words, .result = folder / "result.json", .report = folder / "decode.json"};
}

/// ReGLA's number over Fast Decay's; the paper's are the same.
void add_ratio(Comparison& comparison, const std::string& row, const std::string& unit) {
  const Cell ours = cell_of(comparison, row, "ReGLA" + unit);
  const Cell other = cell_of(comparison, row, "Fast Decay" + unit);
  Cell& ratio = cell_of(comparison, row, "ReGLA / Fast Decay" + unit);
  if (ours.values.empty() || other.values.empty()) return;
  ratio.values = {ours.values[0] / other.values[0]};
  ratio.paper = 1;
}

Comparison compare_decoding(const Setting& setting) {
  Comparison comparison;
  comparison.title = "Figure 5: time and peak memory of writing a text of so many tokens";
  comparison.paper_is = "paper";
  comparison.decimals = 2;
  const auto finding = found(decoding_step(setting));
  check(finding.has_value(), "[reproduce] lost the result of figure 5");
  std::vector<std::string> lengths;
  for (const Json& row : finding->result.at("rows")) {
    const std::string length = row.at("tokens").dump();
    if (lengths.empty() || lengths.back() != length) lengths.push_back(length);
    for (const Kind& kind : kKinds) {
      if (row.at("mixer") != std::string(kind.mixer)) continue;
      const std::string label(kind.label);
      cell_of(comparison, length, label + ", ms").values = {1e3 * row.at("seconds").get<double>()};
      cell_of(comparison, length, label + ", MB").values = {
          1e-6 * row.at("peak_memory_bytes").get<double>()};
    }
  }
  for (const std::string& length : lengths) {
    for (const char* unit : {", ms", ", MB"}) add_ratio(comparison, length, unit);
  }
  const Json& config = finding->result.at("settings").at("config");
  comparison.settings["model"] = config.at("layers").dump() + " layers of width " +
                                 config.at("hidden").dump() + ", " +
                                 config.at("precision").get<std::string>();
  comparison.settings["machine"] = machines_of({*finding});
  comparison.notes = {
      "The paper draws curves on a V100 and gives no numbers; it says that ReGLA and Fast Decay "
      "take about the same time and memory and that softmax attention takes more of both the "
      "longer the text. Medians, one sequence."};
  if (fs::exists(setting.folder / "figure5/decode.svg")) {
    comparison.pictures = {"figure5/decode.svg"};
  }
  return comparison;
}

}  // namespace

Experiment decoding(const Setting& setting) {
  Work work = work_of("figure5", {decoding_step(setting)});
  work.seconds = setting.scale->figure_seconds[5 - 2];
  return {.name = "figure5", .works = {work}, .compare = [&setting] {
            return compare_decoding(setting);
          }};
}

}  // namespace regla::app
