#include <filesystem>
#include <optional>

#include "app/command.h"
#include "app/options.h"
#include "models/gpt_neox.h"
#include "models/inspection.h"
#include "training/checkpoint.h"
#include "training/run_folder.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

struct ImportArguments {
  std::string folder, out;
  std::optional<double> rotary_pct;
  bool sequential = false;
};

std::string joined(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words) list += (list.empty() ? "" : ", ") + word;
  return list;
}

void print_summary(const GptNeoxSummary& summary) {
  print_row("files", joined(summary.files));
  print_row("weights", joined(summary.types));
  if (summary.buffers > 0) print_row("passed over", grouped(summary.buffers) + " buffers");
  for (const std::string& warning : summary.warnings) {
    print_line(stderr, "regla: warning: " + warning);
  }
}

/// The model of a folder of the hub.
Model pretrained(const ImportArguments& arguments) {
  const fs::path folder = arguments.folder;
  GptNeoxSummary summary;
  auto decoder = read_gpt_neox(
      folder, {.sequential = arguments.sequential, .rotary_pct = arguments.rotary_pct}, summary);
  TrainingConfig config;
  config.tokenizer = (folder / "tokenizer.json").string();
  if (decoder->dtype() == DType::F64) config.precision = Precision::F64;
  Model model = model_of(config, load_tokenizer(config.tokenizer), std::move(decoder));
  print_summary(summary);
  return model;
}

/// The model of a folder as this project writes it.
Model own(const ImportArguments& arguments) {
  check(!arguments.sequential && !arguments.rotary_pct, "[import] ", arguments.folder,
        ": --sequential and --rotary-pct are for folders of GPT-NeoX");
  return load_model(arguments.folder);
}

int import_model(const ImportArguments& arguments) {
  check(!holds_run(arguments.out), "[run] ", arguments.out, " already holds a run");
  const Model model = names_architecture(arguments.folder) ? pretrained(arguments) : own(arguments);
  const ModelConfig& config = model.config.model;
  create_run_of(arguments.out, model);
  print_row("tokenizer", grouped(model.tokenizer->vocab_size()) + " entries");
  print_row("model", std::to_string(config.layers) + " layers, hidden " +
                         std::to_string(config.hidden) + ", " +
                         (config.parallel_residual ? "parallel" : "sequential") + " blocks, " +
                         grouped(parameter_count(*model.decoder)) + " parameters");
  print_row("run", arguments.out);
  return 0;
}

}  // namespace

void add_import(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<ImportArguments>();
  CLI::App* command = program.add_subcommand(
      "import", "Make a run of pretrained weights: GPT-NeoX (Pythia), or an exported model");
  add_text(*command, "folder", arguments->folder,
           "folder with config.json, model.safetensors (or its shards) and tokenizer.json",
           "FOLDER")
      ->required();
  add_text(*command, "--out", arguments->out, "run folder", "FOLDER")->required();
  command->add_flag("--sequential", arguments->sequential,
                    "MLP after mixer; default: as the checkpoint says");
  add_number(*command, "--rotary-pct", arguments->rotary_pct,
             "part of a head that turns; default: as the checkpoint says");
  command->callback(
      [arguments, &action] { action = [arguments] { return import_model(*arguments); }; });
}

}  // namespace regla::app
