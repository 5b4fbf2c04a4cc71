#include "app/command.h"
#include "app/options.h"
#include "backends/copies.h"
#include "core/parallel.h"
#include "models/generation.h"
#include "storage/files.h"
#include "storage/safetensors.h"
#include "text/batches.h"
#include "training/checkpoint.h"

namespace regla::app {
namespace {

constexpr uint64_t kIdsLimit = uint64_t{1} << 28;  // bytes of JSON

struct LogitsArguments {
  std::string run, ids, out, form = "chunked";
  InferenceArguments inference;
  int64_t chunk = 0;
};

/// [[...], ...] as [B, T]; every id below `vocab`.
Tensor read_ids(const std::string& path, int64_t vocab) {
  const std::string where = "[logits] " + path + ": ";
  const Json json = parse_json(read_file(path, kIdsLimit, NamedBy::User), where);
  check(json.is_array() && !json.empty(), where, "expected a list of lists of ids, got ",
        shown(json));
  std::vector<int32_t> ids;
  for (size_t b = 0; b < json.size(); ++b) {
    const Json& row = json[b];
    check(row.is_array() && !row.empty(), where, "expected a list of ids as entry ", b, ", got ",
          shown(row));
    check(row.size() == json[0].size(), where, "expected lists of equal length, got ",
          json[0].size(), " ids in entry 0 and ", row.size(), " in entry ", b);
    for (const Json& id : row) {
      check(id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab), where,
            "expected ids from 0 to ", vocab - 1, ", got ", shown(id), " in entry ", b);
      ids.push_back(id.get<int32_t>());
    }
  }
  return Tensor::of({static_cast<int64_t>(json.size()), static_cast<int64_t>(json[0].size())}, ids);
}

int write_logits(const LogitsArguments& arguments) {
  check(arguments.chunk >= 0, "[logits] expected a chunk of at least 0, got ", arguments.chunk);
  const Model model = arguments.inference.load(arguments.run);
  if (model.config.threads > 0) set_threads(static_cast<int>(model.config.threads));
  const Tensor ids = read_ids(arguments.ids, model.config.model.vocab);
  Segment segment = {.reset = {}, .chunk = arguments.chunk};
  if (model.config.reset_at_documents) {
    const std::span<const int32_t> all(ids.data<int32_t>(), static_cast<size_t>(ids.numel()));
    segment.reset = Tensor::of(ids.shape(), document_resets(all, model.tokenizer->end_of_text()));
  }
  const Tensor logits = converted(
      all_logits(*model.decoder, ids, named_value<Form>(arguments.form), segment), DType::F32);
  write_safetensors(arguments.out, std::vector<NamedTensor>{{"logits", logits}}, {}, NamedBy::User);
  return 0;
}

}  // namespace

void add_logits(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<LogitsArguments>();
  CLI::App* command = program.add_subcommand(
      "logits", "Write the scores of every token over the model's vocabulary, padding included");
  add_run(*command, arguments->run)->required();
  add_text(*command, "--ids", arguments->ids, "JSON: [[...], ...], lists of equal length", "FILE")
      ->required();
  add_text(*command, "--out", arguments->out, "safetensors: logits, float32 [B, T, vocab]", "FILE")
      ->required();
  arguments->inference.add_to(*command);
  // Not in the help: to compare the forms with each other from outside.
  add_choice(*command, "--form", arguments->form, {"chunked", "recurrent", "step"}, "")->group("");
  add_number(*command, "--chunk", arguments->chunk, "")->group("");
  command->callback(
      [arguments, &action] { action = [arguments] { return write_logits(*arguments); }; });
}

}  // namespace regla::app
