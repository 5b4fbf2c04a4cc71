#include <algorithm>

#include "analyses/gate_history.h"
#include "app/analyse/analyse.h"
#include "core/parallel.h"
#include "training/stage_json.h"

namespace regla::app {
namespace {

/// What is trained without --config: a few seconds per model; rotated as the paper's.
const char* const kSmallConfig = R"({"steps": 600, "batch_size": 8, "learning_rate": 0.003,
    "schedule": "cosine", "warmup_steps": 20, "tokenizer": "byte", "layers": 2, "hidden": 64,
    "heads": 2, "mixer": {"rope": "full"}, "dropout": 0, "sequence_length": 64})";

struct HistogramArguments {
  std::string out, config;
  std::vector<std::string> runs, set;
  std::vector<double> biases = {-6, 6};
  std::optional<int64_t> steps;
  std::optional<std::string> device;
  SampleArguments text;
};

/// The bins of one layer, or of all (-1), at one time.
void add_bins(Json& rows, const std::string& panel, const std::string& series, const char* stage,
              const LayerGates& layer) {
  const GateStatistics& s = layer.gates;
  for (int64_t bin = 0; bin < GateStatistics::kBins; ++bin) {
    const auto number = static_cast<double>(s.bins[static_cast<size_t>(bin)]);
    rows.push_back({{"panel", panel},
                    {"series", series},
                    {"stage", stage},
                    {"layer", gate_numbers(layer)["layer"]},
                    {"from", static_cast<double>(bin) / GateStatistics::kBins},
                    {"to", static_cast<double>(bin + 1) / GateStatistics::kBins},
                    {"fraction", s.mean(number)}});
  }
}

/// Gathers what the report says about some histories of gates.
struct Histograms {
  Json rows = Json::array(), summary = Json::array();
  std::vector<std::string> panels, series;

  void add(const std::string& panel, const std::string& name, const GateHistory& history) {
    if (std::find(panels.begin(), panels.end(), panel) == panels.end()) panels.push_back(panel);
    if (std::find(series.begin(), series.end(), name) == series.end()) series.push_back(name);
    add_stage(panel, name, "before", history.before);
    add_stage(panel, name, "after", history.after);
  }

 private:
  void add_stage(const std::string& panel, const std::string& name, const char* stage,
                 const std::vector<LayerGates>& layers) {
    std::vector<LayerGates> all = {all_layers(layers)};
    check(all[0].gated(), "[analyse] ", name, " has no gated mixer");
    for (const LayerGates& layer : layers) {
      if (layer.gated()) all.push_back(layer);
    }
    for (const LayerGates& layer : all) {
      add_bins(rows, panel, name, stage, layer);
      Json line = {{"panel", panel}, {"series", name}, {"stage", stage}};
      line.update(gate_numbers(layer));
      summary.push_back(line);
    }
    print_row("  " + name + " " + stage, gate_sentence(all[0]));
  }
};

TrainingConfig small_config(const HistogramArguments& arguments) {
  std::vector<std::string> overrides = arguments.set;
  if (arguments.steps) overrides.push_back("steps=" + std::to_string(*arguments.steps));
  if (arguments.device) overrides.push_back("device=" + *arguments.device);
  if (!arguments.config.empty()) return read_config(arguments.config, overrides);
  std::string text = kSmallConfig;
  for (const std::string& assignment : overrides) text = apply_override(text, assignment);
  return from_json(text);
}

/// Trains one model per gate and bias.
void train_histograms(const HistogramArguments& arguments, Device device, Histograms& histograms) {
  const TrainingConfig config = small_config(arguments);
  if (config.threads > 0) set_threads(static_cast<int>(config.threads));
  const Corpus corpus = Corpus::open(arguments.text.data, config.text);
  for (const double bias : arguments.biases) {
    const std::string panel = "bias " + rounded(bias);
    std::printf("%s\n", panel.c_str());
    for (const Gate gate : {Gate::Sigmoid, Gate::Refined}) {
      const Model model =
          make_model(with_gates(config, gate, bias), tokenizer_for(config, corpus), device);
      const TokenStream text = tokenize_split(corpus, Split::Train, *model.tokenizer);
      const GateHistory history =
          train_gates(model, text, arguments.text.sample(model), show_steps);
      end_scoring();
      histograms.add(panel, std::string(name_of(gate)), history);
      print_row("  " + std::string(name_of(gate)) + " loss", rounded(history.loss, 5));
      std::fflush(stdout);
    }
  }
}

void look_at_runs(const HistogramArguments& arguments, Device device, Histograms& histograms) {
  const std::vector<std::string> labels = labels_of(arguments.runs);
  for (size_t i = 0; i < labels.size(); ++i) {
    const Model model = load_model(arguments.runs[i], device);
    histograms.add("runs", labels[i], gates_of_run(model, arguments.text.sample(model)));
  }
}

int gate_histogram(const HistogramArguments& arguments) {
  const Device device = opened_device(arguments.runs.empty() ? small_config(arguments).device
                                                             : arguments.device.value_or("cpu"));
  make_report_folder(arguments.out);
  check(!arguments.text.data.empty(), "[analyse] expected --data PATH");
  Histograms histograms;
  if (arguments.runs.empty()) {
    train_histograms(arguments, device, histograms);
  } else {
    look_at_runs(arguments, device, histograms);
  }
  Json settings = {{"data", arguments.text.data},
                   {"split", arguments.text.split},
                   {"sequences", arguments.text.sequences}};
  if (arguments.runs.empty()) {
    settings["biases"] = arguments.biases;
    settings["config"] = write_fields(small_config(arguments).resolved());
  } else {
    settings["runs"] = arguments.runs;
  }
  write_report(arguments.out, {.name = "gate-histogram",
                               .settings = settings,
                               .summary = histograms.summary,
                               .rows = histograms.rows,
                               .variables = gnuplot_array("panels", histograms.panels) +
                                            gnuplot_array("series", histograms.series),
                               .script = kGateHistogramPlot});
  return 0;
}

}  // namespace

void add_gate_histogram(CLI::App& analyse, Action& action) {
  auto arguments = std::make_shared<HistogramArguments>();
  CLI::App* command = analyse.add_subcommand(
      "gate-histogram",
      "Figure 4: gates before and after training. Without runs, trains small models that start "
      "saturated, with the plain and with the refined gate");
  add_report_folder(*command, arguments->out);
  auto* runs = add_runs(*command, arguments->runs, "runs that were trained already");
  const auto training = [&](CLI::Option* option) { option->excludes(runs); };
  training(add_config(*command, arguments->config, "; default: a small one"));
  training(add_numbers(*command, "--bias", arguments->biases, "initial biases of the forget gate"));
  training(add_steps(*command, arguments->steps));
  training(add_set(*command, arguments->set));
  arguments->text.add_to(*command);
  add_device(*command, arguments->device, "as configured, for runs cpu");
  command->callback(
      [arguments, &action] { action = [arguments] { return gate_histogram(*arguments); }; });
}

}  // namespace regla::app
