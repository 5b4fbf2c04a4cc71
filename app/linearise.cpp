#include "app/command.h"
#include "app/options.h"
#include "models/inspection.h"
#include "models/linearisation.h"
#include "training/checkpoint.h"
#include "training/run_folder.h"

namespace regla::app {
namespace {

struct LineariseArguments {
  std::string run, mixer, protocol = "paper", layers = "all", out;
  std::vector<std::string> set;
  std::optional<int64_t> seed;
  bool keep_qkv = false;
};

/// How gates begin where the new mixer is to change little: F near 1, and r = 1/2.
constexpr const char* kOpenGates[] = {"gate_bias_init=constant", "gate_bias=4", "refine_bias=0"};

/// The mixer as it is asked for, checked with the sizes of the run's model.
MixerConfig mixer_of(const LineariseArguments& arguments, const TrainingConfig& config) {
  std::string text = apply_override(config.to_json(), "mixer=" + dumped(Json(arguments.mixer)));
  const auto set = [&](const std::string& assignment) {
    text = apply_override(text, "mixer." + assignment);
  };
  const MixerConfig named = from_json(text).model.mixer.at(0);
  const bool forgets = named.gate != Gate::None && named.type != MixerType::DeltaNet;
  if (arguments.protocol == "distil" && forgets) {
    for (const char* assignment : kOpenGates) set(assignment);
  }
  for (const std::string& assignment : arguments.set) set(assignment);
  return from_json(text).model.mixer.at(0);
}

/// Whether the arguments say how queries and keys turn.
bool sets_rotation(const std::vector<std::string>& set) {
  return std::any_of(set.begin(), set.end(), [](const std::string& assignment) {
    const std::string key = assignment.substr(0, assignment.find('='));
    return key == "rope" || key == "rotary_pct" || key == "rope_base";
  });
}

void print_groups(const char* what, const std::vector<ParameterGroup>& groups) {
  int64_t total = 0;
  for (const ParameterGroup& group : groups) total += group.parameters;
  print_row(what, grouped(total) + " parameters");
  for (const ParameterGroup& group : groups) {
    print_row("  " + group.name, grouped(group.parameters));
  }
}

std::string listed(const std::vector<int64_t>& layers) {
  std::string list;
  for (const int64_t layer : layers) list += (list.empty() ? "" : ", ") + std::to_string(layer);
  return list;
}

int linearise(const LineariseArguments& arguments) {
  check(!holds_run(arguments.out), "[run] ", arguments.out, " already holds a run");
  const Model trained = load_model(arguments.run);
  TrainingConfig config = trained.config;
  if (arguments.seed) config.seed = static_cast<uint64_t>(*arguments.seed);
  Linearisation plan;
  plan.layers = layers_named(arguments.layers, config.model.layers);
  plan.mixer = mixer_of(arguments, config);
  plan.keep_projections = arguments.keep_qkv || arguments.protocol == "distil";
  plan.keep_rotation = plan.keep_projections && !sets_rotation(arguments.set);
  LinearisationReport report;
  auto decoder = linearised(*trained.decoder, plan, config.seed, report);
  config.model = decoder->config();
  config.validate();
  const Model model =
      model_of(config, tokenizer_from_json(trained.tokenizer->to_json()), std::move(decoder));
  create_run_of(arguments.out, model);
  print_row(arguments.mixer, "in place of softmax attention in the layers " + listed(plan.layers) +
                                 " of 0 to " + std::to_string(config.model.layers - 1));
  print_groups("kept", report.kept);
  print_groups("replaced", report.replaced);
  print_groups("added", report.added);
  print_row("model", grouped(parameter_count(*model.decoder)) + " parameters");
  print_row("run", arguments.out);
  return 0;
}

}  // namespace

void add_linearise(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<LineariseArguments>();
  CLI::App* command = program.add_subcommand(
      "linearise", "Replace the softmax attention of a run's layers, to be trained further");
  add_run(*command, arguments->run)->required();
  const auto names = names_of(MixerType{});
  add_choice(*command, "--mixer", arguments->mixer, {names.begin(), names.end()},
             "what goes in its place")
      ->required();
  add_choice(*command, "--protocol", arguments->protocol, {"paper", "distil"},
             "what it begins with. paper: all at random. distil: what --keep-qkv keeps, and gates "
             "that forget little (gate_bias=4, unless --set says otherwise), to be trained in "
             "stages that learn from the run (docs/pythia.md)");
  add_text(*command, "--layers", arguments->layers,
           "where: all, alternate (1, 3, 5, ...) or numbers from 0 with commas between", "LAYERS");
  command->add_flag("--keep-qkv", arguments->keep_qkv,
                    "keep the projections of queries, keys, values and output, and how queries and "
                    "keys turn; default: all of the new mixer begins at random");
  add_set(*command, arguments->set, "set keys of the new mixer");
  add_number(*command, "--seed", arguments->seed, "of what is drawn; default: the run's", 0);
  add_text(*command, "--out", arguments->out, "folder of the new run", "FOLDER")->required();
  command->callback(
      [arguments, &action] { action = [arguments] { return linearise(*arguments); }; });
}

}  // namespace regla::app
