// Figure 5: time and memory of decoding.

#include <algorithm>
#include <filesystem>

#include "app/analyse/analyse.h"
#include "app/command.h"
#include "app/reproduce/experiment.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kShortestText = 64, kLongestText = 8192;

struct Kind {
  std::string_view label, mixer;
};
constexpr Kind kKinds[] = {
    {"ReGLA", "regla"}, {"Fast Decay", "fast_decay"}, {"softmax", "softmax"}};

constexpr std::string_view kDecodingPlot = R"gp(
set terminal svg size 760,400 font 'sans,13' background 'white'
set multiplot layout 1,2
array mixers[3] = ['ReGLA', 'Fast Decay', 'softmax']
array colours[3] = ['#0060ad', '#c04000', '#2e8b57']
set logscale xy 2
set format x '2^{%L}'
set xlabel 'tokens of the text' offset 0,0.5
set xrange [64 / 1.2:8192 * 1.2]
set format y '%g'
set border 3
set tics nomirror
set grid ytics lc rgb '#dddddd'
set bmargin 6.5
set key below center horizontal maxcols 3 samplen 1.5 noenhanced
of(name, what) = strcol('mixer') eq name ? column(what) : NaN
set title 'time, ms'
plot for [i = 1:3] csv using 'tokens':(of(mixers[i], 'ms')) with linespoints pt i + 4 ps 0.7 lc rgb colours[i] title mixers[i]
set title 'peak memory, MB'
plot for [i = 1:3] csv using 'tokens':(of(mixers[i], 'megabytes')) with linespoints pt i + 4 ps 0.7 lc rgb colours[i] title mixers[i]
unset multiplot
)gp";

Step decoding_step(const Setting& setting, const Kind& decoder) {
  Words words = {"bench",
                 "decode",
                 "--json",
                 "--repeats",
                 "3",
                 "--device",
                 setting.device,
                 "--set",
                 "mixer=" + std::string(decoder.mixer),
                 "sequence_length=" + std::to_string(kLongestText)};
  const Json model = parse_json(setting.scale->decoding, "[reproduce]");
  for (const auto& [key, value] : model.items()) {
    words.push_back(key + "=" + value.dump());
  }
  words.insert(words.end(), setting.set.begin(), setting.set.end());
  words.emplace_back("batch_size=1");
  return {.words = words,
          .result = setting.folder / "figure5" / (std::string(decoder.mixer) + ".json"),
          .report = {}};
}

/// Rows of the picture: the time and memory of a text of every length.
Json texts_of(const Json& benchmark, const Kind& decoder) {
  Json rows = Json::array();
  const Json& results = benchmark.at("results");
  for (int64_t length = kShortestText; length <= kLongestText; length *= 2) {
    const std::string name = "text of " + std::to_string(length);
    const auto row =
        std::ranges::find_if(results, [&](const Json& line) { return line.at("name") == name; });
    if (row == results.end()) continue;
    rows.push_back({{"mixer", std::string(decoder.label)},
                    {"tokens", length},
                    {"ms", 1e3 * row->at("median_s").get<double>()},
                    {"megabytes", 1e-6 * row->value("peak_memory_bytes", 0.0)}});
  }
  return rows;
}

Comparison compare_decoding(const Setting& setting) {
  Comparison comparison;
  comparison.title = "Figure 5: time and peak memory of writing a text of so many tokens";
  comparison.paper_is = "paper";
  comparison.decimals = 2;
  std::vector<Finding> findings;
  Json rows = Json::array();
  for (const Kind& decoder : kKinds) {
    const auto finding = found(decoding_step(setting, decoder));
    check(finding.has_value(), "[reproduce] lost the result of figure 5");
    findings.push_back(*finding);
    for (const Json& row : texts_of(finding->result, decoder)) rows.push_back(row);
  }
  check(!rows.empty(), "[reproduce] a text of ", kShortestText,
        " tokens is longer than sequence_length");
  for (const Json& row : rows) {
    const std::string name = row["tokens"].dump(), mixer = row["mixer"].get<std::string>();
    cell_of(comparison, name, mixer + ", ms").values = {row["ms"].get<double>()};
    cell_of(comparison, name, mixer + ", MB").values = {row["megabytes"].get<double>()};
  }
  for (int64_t length = kShortestText; length <= kLongestText; length *= 2) {
    const std::string name = std::to_string(length);
    for (const char* unit : {", ms", ", MB"}) {
      const Cell ours = cell_of(comparison, name, "ReGLA" + std::string(unit));
      const Cell other = cell_of(comparison, name, "Fast Decay" + std::string(unit));
      Cell& ratio = cell_of(comparison, name, "ReGLA / Fast Decay" + std::string(unit));
      if (ours.values.empty() || other.values.empty()) continue;
      ratio.values = {ours.values[0] / other.values[0]};
      ratio.paper = 1;
    }
  }
  comparison.settings["model"] = findings[0].result.at("config").at("layers").dump() +
                                 " layers of width " +
                                 findings[0].result.at("config").at("hidden").dump();
  comparison.settings["machine"] = machines_of(findings);
  comparison.notes = {
      "The paper draws curves on a V100 and gives no numbers; it says that ReGLA and Fast Decay "
      "take about the same time and memory and that softmax attention takes more of both the "
      "longer the text. Medians of 3 texts, one sequence, batch 1."};
  write_report((setting.folder / "figure5").string(), {.name = "decoding",
                                                       .settings = comparison.settings,
                                                       .summary = {},
                                                       .rows = rows,
                                                       .variables = "",
                                                       .script = kDecodingPlot});
  if (fs::exists(setting.folder / "figure5/decoding.svg")) {
    comparison.pictures = {"figure5/decoding.svg"};
  }
  return comparison;
}

}  // namespace

Experiment decoding(const Setting& setting) {
  std::vector<Step> steps;
  for (const Kind& decoder : kKinds) steps.push_back(decoding_step(setting, decoder));
  return {.name = "figure5", .works = {work_of("figure5", steps)}, .compare = [&setting] {
            return compare_decoding(setting);
          }};
}

}  // namespace regla::app
