#include <algorithm>

#include "analyses/gate_history.h"
#include "app/analyse/analyse.h"

namespace regla::app {
namespace {

struct SaturationArguments {
  std::string out;
  std::vector<std::string> runs;
  std::string device = "cpu";
  SampleArguments text;
};

/// Adds the layers of a run, and all of them together; returns how many there are.
int64_t add_run(Json& rows, const std::string& run, const std::string& label,
                const SampleArguments& text, Device device) {
  const Model model = load_model(run, device);
  const TextSample sample = text.sample(model);
  std::vector<LayerGates> layers = observe_gates(*model.decoder, sample.ids, sample.reset);
  layers.push_back(all_layers(layers));
  check(layers.back().gated(), "[analyse] ", run, " has no gated mixer");
  print_line(stdout, run);
  for (const LayerGates& layer : layers) {
    const std::string name =
        layer.layer < 0 ? "  all layers" : "  layer " + std::to_string(layer.layer);
    print_row(name, layer.gated() ? gate_sentence(layer) : "no gate");
    if (!layer.gated()) continue;
    Json row = {{"run", label}};
    row.update(gate_numbers(layer));
    rows.push_back(row);
  }
  return model.config.model.layers;
}

int saturation(const SaturationArguments& arguments) {
  const Device device = opened_device(arguments.device);
  make_report_folder(arguments.out);
  Json rows = Json::array();
  const std::vector<std::string> labels = labels_of(arguments.runs);
  int64_t layers = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    layers = std::max(layers, add_run(rows, arguments.runs[i], labels[i], arguments.text, device));
  }
  write_report(arguments.out, {.name = "saturation",
                               .settings = {{"runs", arguments.runs},
                                            {"data", arguments.text.data},
                                            {"split", arguments.text.split},
                                            {"sequences", arguments.text.sequences}},
                               .summary = {},
                               .rows = rows,
                               .variables = gnuplot_array("runs", labels) +
                                            "layers = " + std::to_string(layers) + "\n",
                               .script = kSaturationPlot});
  return 0;
}

}  // namespace

void add_saturation(CLI::App& analyse, Action& action) {
  auto arguments = std::make_shared<SaturationArguments>();
  CLI::App* command = analyse.add_subcommand(
      "saturation", "Section 5.1: how many gates of runs are saturated, gradients, memory");
  add_report_folder(*command, arguments->out);
  add_runs(*command, arguments->runs, "run folders")->required();
  arguments->text.add_to(*command);
  add_device(*command, arguments->device);
  command->callback(
      [arguments, &action] { action = [arguments] { return saturation(*arguments); }; });
}

}  // namespace regla::app
