#include <algorithm>
#include <cmath>
#include <filesystem>

#include "app/analyse/analyse.h"
#include "app/command.h"
#include "app/reproduce/experiment.h"
#include "app/reproduce/runs.h"
#include "storage/files.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

constexpr double kGates[] = {0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99};  // rows of Figure 3

/// An analysis that is done once for each seed.
struct Analysis {
  size_t number;             ///< of the figure
  std::string report;        ///< variance
  std::vector<Split> reads;  ///< of the text
  std::function<Words(int64_t seed)> words;

  std::string figure() const { return "figure" + std::to_string(number); }
};

fs::path folder_of(const Setting& setting, const Analysis& analysis, int64_t seed) {
  return setting.folder / (analysis.figure() + "-" + std::to_string(seed));
}

Step step_of(const Setting& setting, const Analysis& analysis, int64_t seed) {
  const fs::path folder = folder_of(setting, analysis, seed);
  Words words = {"analyse", analysis.report, "--out", folder.string()};
  const Words more = analysis.words(seed);
  words.insert(words.end(), more.begin(), more.end());
  return {.words = words,
          .result = folder / "result.json",
          .report = folder / (analysis.report + ".json")};
}

/// What every seed's analysis found, and the words that say so.
std::vector<Json> results_of(const Setting& setting, const Analysis& analysis, int64_t seeds,
                             Comparison& comparison) {
  std::vector<Json> results;
  std::vector<Finding> findings;
  for (int64_t seed = 0; seed < seeds; ++seed) {
    const auto finding = found(step_of(setting, analysis, seed));
    check(finding.has_value(), "[reproduce] lost the result of ", analysis.figure());
    findings.push_back(*finding);
    results.push_back(finding->result);
  }
  std::string files;
  for (const Split split : analysis.reads) {
    files += (files.empty() ? "" : ", ") + name_of_data(setting, split);
  }
  if (!files.empty()) {
    comparison.settings["data"] = files;
    comparison.settings["seeds"] = seeds_text(seeds);
  }
  comparison.settings["machine"] = machines_of(findings);
  const fs::path picture = folder_of(setting, analysis, 0) / (analysis.report + ".svg");
  if (fs::exists(picture)) {
    comparison.pictures = {picture.lexically_relative(setting.folder).generic_string()};
  }
  return results;
}

std::vector<Work> works_of(const Setting& setting, const Analysis& analysis, int64_t seeds) {
  std::vector<Work> works;
  for (int64_t seed = 0; seed < seeds; ++seed) {
    works.push_back(work_of(analysis.figure() + "-" + std::to_string(seed),
                            {step_of(setting, analysis, seed)}));
    works.back().seconds = setting.scale->figure_seconds[analysis.number - 2];
  }
  return works;
}

Experiment figure_2(const Setting& setting) {
  need_data(setting);
  const Analysis analysis = {
      2, "variance", {Split::Valid}, [&setting](int64_t seed) {
        return Words{"--data", setting.data, "--sequences",        "100",      "--length",
                     "1000",   "--seed",     std::to_string(seed), "--device", setting.device};
      }};
  const auto compare = [&setting, analysis] {
    Comparison comparison;
    comparison.title = "Figure 2: standard deviation of inner products";
    comparison.paper_is = "Theorem 3.1, the paper's curve";
    comparison.decimals = 2;
    for (const Json& result : results_of(setting, analysis, setting.seeds, comparison)) {
      for (const Json& point : result.at("rows")) {
        const bool is_normal = point.at("source") == "gaussian";
        const std::string row = "d = " + point.at("dimension").dump();
        for (const char* map : {"identity", "exp"}) {
          Cell& cell = cell_of(comparison, row,
                               std::string(map) + (is_normal ? ", normal numbers" : ", one layer"));
          cell.values.push_back(point.at(map).get<double>());
          if (is_normal) cell.paper = point.at(std::string(map) + "_theorem").get<double>();
        }
      }
    }
    comparison.notes = {
        "Normal numbers: 20,000 pairs of vectors; the paper draws 500 of them. One layer: queries "
        "and keys of a fresh model of one layer on 100 sequences of 1,000 tokens, for which the "
        "paper draws points and no curve."};
    return comparison;
  };
  return {.name = analysis.figure(),
          .works = works_of(setting, analysis, setting.seeds),
          .compare = compare};
}

Experiment figure_3(const Setting& setting) {
  const Analysis analysis = {3, "gate-gradient", {}, [](int64_t) { return Words{}; }};
  const auto compare = [&setting, analysis] {
    Comparison comparison;
    comparison.title = "Figure 3: gradient of the refined gate";
    comparison.paper_is = "the derivative of Eq. 16";
    comparison.decimals = 4;
    const Json result = results_of(setting, analysis, 1, comparison).at(0);
    std::vector<Cell> sigmoids;
    for (const Json& point : result.at("rows")) {
      const double g = point.at("g").get<double>(), r = point.at("r").get<double>();
      const bool is_shown =
          std::ranges::any_of(kGates, [&](double shown) { return std::abs(g - shown) < 1e-9; });
      if (!is_shown) continue;
      const std::string row = "g = " + rounded(g);
      Cell& refined = cell_of(comparison, row, "r = " + rounded(r));
      refined.values = {point.at("d_z_g").get<double>()};
      refined.paper = 2 * g * (1 - g) * ((1 - r) * g + r * (1 - g));
      sigmoids.push_back({.row = row,
                          .column = "sigmoid",
                          .values = {point.at("sigmoid").get<double>()},
                          .paper = g * (1 - g)});
    }
    for (const Cell& cell : sigmoids) {  // the same beside every r
      cell_of(comparison, cell.row, cell.column) = cell;
    }
    comparison.notes = {"Ours is what the op's backward pass gives."};
    return comparison;
  };
  return {.name = analysis.figure(), .works = works_of(setting, analysis, 1), .compare = compare};
}

Experiment figure_4(const Setting& setting) {
  need_data(setting);
  const Analysis analysis = {
      4, "gate-histogram", {Split::Train, Split::Valid}, [&setting](int64_t seed) {
        Words words = {"--data", setting.data, "--device", setting.device};
        if (!setting.scale->figure_4.empty()) {
          words.insert(
              words.end(),
              {"--config", config_file(setting, "figure4-" + std::to_string(seed)).string()});
        }
        words.insert(words.end(), {"--set", "seed=" + std::to_string(seed)});
        words.insert(words.end(), setting.set.begin(), setting.set.end());
        return words;
      }};
  const auto compare = [&setting, analysis] {
    Comparison comparison;
    comparison.title = "Figure 4: gates before and after training, percent of all";
    comparison.paper_is = "paper";
    for (const Json& result : results_of(setting, analysis, setting.seeds, comparison)) {
      for (const Json& line : result.at("summary")) {
        if (line.at("layer") != "all") continue;
        const std::string row = line.at("panel").get<std::string>() + ", " +
                                line.at("series").get<std::string>() + ", " +
                                line.at("stage").get<std::string>();
        const auto add = [&](const char* column, const char* key) {
          cell_of(comparison, row, column).values.push_back(100 * line.at(key).get<double>());
        };
        add("F < 0.05", "below_0.05");
        add("F > 0.95", "above_0.95");
        add("mean of F", "mean");
      }
    }
    comparison.notes = {
        "The paper draws histograms and gives no numbers, no biases and no model. It says that the "
        "plain gate hardly leaves the extreme it began in and the refined one does."};
    return comparison;
  };
  Experiment experiment = {.name = analysis.figure(),
                           .works = works_of(setting, analysis, setting.seeds),
                           .compare = compare};
  if (setting.scale->figure_4.empty()) return experiment;
  for (int64_t seed = 0; seed < setting.seeds; ++seed) {
    experiment.works[static_cast<size_t>(seed)].prepare = [&setting, seed] {
      Json config = parse_json(config_of_run(setting, variant_named("regla"), seed), "[reproduce]");
      config.update(parse_json(setting.scale->figure_4, "[reproduce]"));
      // Where that of `analyse` itself is another.
      write_config(setting, "figure4-" + std::to_string(seed), config);
    };
  }
  return experiment;
}

}  // namespace

Experiment figure(const Setting& setting, int64_t number) {
  switch (number) {
    case 2:
      return figure_2(setting);
    case 3:
      return figure_3(setting);
    case 4:
      return figure_4(setting);
    default:
      return decoding(setting);
  }
}

}  // namespace regla::app
