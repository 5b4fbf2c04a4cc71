#include <algorithm>

#include "analyses/score_analysis.h"
#include "app/analyse/analyse.h"
#include "layers/feature_maps.h"
#include "text/byte_tokenizer.h"

namespace regla::app {
namespace {

struct VarianceArguments {
  std::string out;
  std::vector<std::string> runs;
  std::string device = "cpu";
  std::vector<int64_t> dimensions = {8, 16, 32, 64, 128, 256, 512};
  int64_t pairs = 20000, length = 256, hidden = 256;
  uint64_t seed = 0;
  SampleArguments text;
};

/// One point of the picture, with what the theorem says.
Json row(const std::string& source, const ScoreSpread& s, const ScoreSpread& theorem) {
  const double root = score_scale(ScoreScale::SqrtD, s.dimension),
               factor = score_scale(ScoreScale::Variance, s.dimension);
  return {{"source", source},
          {"dimension", s.dimension},
          {"pairs", s.pairs},
          {"query_std", s.query},
          {"key_std", s.key},
          {"identity", s.identity},
          {"exp", s.exp},
          {"safe_exp", s.safe_exp},
          {"identity_theorem", theorem.identity},
          {"exp_theorem", theorem.exp},
          {"safe_exp_theorem", theorem.safe_exp},
          {"identity_times_sqrt_d", s.identity * root},
          {"exp_times_sqrt_d", s.exp * root},
          {"exp_times_variance", s.exp * factor},
          {"safe_exp_times_variance", s.safe_exp * factor}};
}

/// A freshly initialised model of one layer and one head whose queries and keys have d elements.
Model one_layer_model(const VarianceArguments& arguments, int64_t d, Device device) {
  TrainingConfig config;
  config.tokenizer = "byte";
  config.seed = arguments.seed;
  config.model.layers = 1;
  config.model.heads = 1;
  config.model.hidden = arguments.hidden;
  config.model.sequence_length = arguments.length;
  config.model.mixer[0].feature_dim = d;
  config.model.mixer[0].rope = Rope::Full;  // as in the paper
  return make_model(config, byte_tokenizer(), device);
}

void print_point(const Json& point) {
  const auto number = [&](const char* key) { return rounded(point[key].get<double>(), 4); };
  print_row("  " + point["source"].get<std::string>(),
            "d " + point["dimension"].dump() + "  identity " + number("identity") + " (" +
                number("identity_theorem") + ")  exp " + number("exp") + " (" +
                number("exp_theorem") + ")  safe exp " + number("safe_exp"));
}

/// Measures all points and prints each.
Json points(const VarianceArguments& arguments, Device device) {
  Json rows = Json::array();
  const auto add = [&](const std::string& source, const ScoreSpread& s,
                       const ScoreSpread& theorem) {
    rows.push_back(row(source, s, theorem));
    print_point(rows.back());
  };
  // On text the theorem is taken for elements as spread as they are there.
  const auto add_text = [&](const std::string& source, const ScoreSpread& s) {
    add(source, s, score_theorem(s.dimension, s.query, s.key));
  };
  for (const int64_t d : arguments.dimensions) {
    add("gaussian", gaussian_scores(d, arguments.pairs, arguments.seed), score_theorem(d));
  }
  if (arguments.text.data.empty()) return rows;
  for (const int64_t d : arguments.dimensions) {
    const Model model = one_layer_model(arguments, d, device);
    add_text("one layer", text_scores(*model.decoder, arguments.text.sample(model).ids)[0]);
  }
  const std::vector<std::string> labels = labels_of(arguments.runs);
  for (size_t i = 0; i < labels.size(); ++i) {
    const Model model = load_model(arguments.runs[i], device);
    const auto layers = text_scores(*model.decoder, arguments.text.sample(model).ids);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      if (layers[layer].pairs == 0) continue;  // softmax attention
      add_text(labels[i] + " " + std::to_string(layer), layers[layer]);
    }
  }
  return rows;
}

/// What the script needs to know about the rows.
std::string script_variables(const VarianceArguments& arguments, const Json& rows) {
  int64_t lowest = rows[0]["dimension"].get<int64_t>(), highest = lowest;
  for (const Json& point : rows) {
    lowest = std::min(lowest, point["dimension"].get<int64_t>());
    highest = std::max(highest, point["dimension"].get<int64_t>());
  }
  return std::string("panels = ") + (arguments.text.data.empty() ? "2" : "3") +
         "\nruns = " + std::to_string(arguments.runs.size()) +
         "\nlowest = " + std::to_string(lowest) + "\nhighest = " + std::to_string(highest) + "\n";
}

int variance(const VarianceArguments& arguments) {
  const Device device = opened_device(arguments.device);
  make_report_folder(arguments.out);
  check(arguments.runs.empty() || !arguments.text.data.empty(),
        "[analyse] expected --data PATH beside a run");
  std::printf("standard deviation of inner products, and what Theorem 3.1 says\n");
  const Json rows = points(arguments, device);
  const Json settings = {{"pairs", arguments.pairs},
                         {"seed", arguments.seed},
                         {"length", arguments.length},
                         {"hidden", arguments.hidden},
                         {"data", arguments.text.data},
                         {"split", arguments.text.split},
                         {"sequences", arguments.text.sequences},
                         {"runs", arguments.runs}};
  write_report(arguments.out, {.name = "variance",
                               .settings = settings,
                               .summary = {},
                               .rows = rows,
                               .variables = script_variables(arguments, rows),
                               .script = kVariancePlot});
  return 0;
}

}  // namespace

void add_variance(CLI::App& analyse, Action& action) {
  auto arguments = std::make_shared<VarianceArguments>();
  CLI::App* command = analyse.add_subcommand(
      "variance", "Figure 2: spread of inner products of queries and keys against the dimension");
  add_report_folder(*command, arguments->out);
  add_runs(*command, arguments->runs, "trained runs to look at besides");
  add_numbers(*command, "--dimension", arguments->dimensions, "dimensions d", 2, 4096);
  add_number(*command, "--pairs", arguments->pairs, "pairs of normal vectors", 2, 100000000);
  add_number(*command, "--length", arguments->length, "tokens per sequence of the one-layer models",
             1, 65536);
  add_number(*command, "--hidden", arguments->hidden, "their width", 1, 65536);
  add_number(*command, "--seed", arguments->seed, "of the vectors and the models");
  arguments->text.add_to(*command);
  add_device(*command, arguments->device);
  command->callback(
      [arguments, &action] { action = [arguments] { return variance(*arguments); }; });
}

}  // namespace regla::app
