#include <filesystem>

#include "app/command.h"
#include "app/options.h"
#include "models/gpt_neox.h"
#include "storage/files.h"
#include "training/checkpoint.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

struct ExportArguments {
  std::string run, out;
};

/// An Error where something has the name of a file that is to be written, else the folder.
fs::path free_folder(const std::string& path) {
  const fs::path folder = path;
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error && fs::is_directory(folder, error), "[export] cannot make the folder ", path,
        error ? ": " + error.message() : " where a file is");
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors",
                           "tokenizer.json", "tokenizer_config.json"}) {
    check(!fs::exists(fs::symlink_status(folder / name)), "[export] ", (folder / name).string(),
          " is in the way; use another folder");
  }
  return folder;
}

/// The tokenizer for `transformers`.
void write_tokenizer(const fs::path& folder, const Tokenizer& tokenizer, int64_t length) {
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"bos_token", std::string(kEndOfText)},
                       {"eos_token", std::string(kEndOfText)},
                       {"unk_token", std::string(kEndOfText)},
                       {"model_max_length", length},
                       {"clean_up_tokenization_spaces", false}};
  write_file(folder / "tokenizer_config.json", dumped(config, 2) + "\n");
  write_file(folder / "tokenizer.json", tokenizer.to_json());
}

int export_model(const ExportArguments& arguments) {
  const Model model = load_model(arguments.run);
  const std::string obstacle = gpt_neox_obstacle(model.config.model);
  const fs::path folder = free_folder(arguments.out);
  if (obstacle.empty()) {
    write_tokenizer(folder, *model.tokenizer, model.config.model.sequence_length);
    write_gpt_neox(folder, *model.decoder, model.tokenizer->end_of_text(),
                   model.tokenizer->vocab_size());
    print_row("layout", "GPT-NeoX, as transformers reads it");
  } else {
    write_model(folder, model);
    print_row("layout", "this project's: " + obstacle);
  }
  print_row("folder", arguments.out);
  return 0;
}

}  // namespace

void add_export(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command = program.add_subcommand(
      "export",
      "Write a run's model for other programs: softmax attention as GPT-NeoX, others as files of "
      "this program alone");
  add_run(*command, arguments->run)->required();
  add_text(*command, "--out", arguments->out, "folder without such files", "FOLDER")->required();
  command->callback(
      [arguments, &action] { action = [arguments] { return export_model(*arguments); }; });
}

}  // namespace regla::app
