#include "app/report/run_record.h"

#include <algorithm>
#include <filesystem>

#include "app/answers.h"
#include "app/machine.h"
#include "training/run_folder.h"

namespace regla::app {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kResultLimit = uint64_t{16} << 20;

/// The JSON files of a folder by name; nothing where there is no folder.
std::vector<Result> read_results(const fs::path& folder) {
  std::vector<Result> results;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const fs::path& path = entry.path();
    if (path.extension() != ".json") continue;
    results.push_back({path.stem().string(),
                       parse_json(read_file(path, kResultLimit), "[report] " + path.string())});
  }
  std::ranges::sort(results, {}, &Result::name);
  return results;
}

/// Text that the model writes behind the prompt, a draw per seed.
std::vector<std::string> samples_of(const Model& model, const SampleRequest& request) {
  model.config.model.require_step_form();
  const Tokenizer& tokenizer = *model.tokenizer;
  const std::vector<int32_t> prompt = ids_of(model, request.prompt);
  GenerationOptions options = {
      .sampling = {.temperature = request.temperature, .top_k = request.top_k},
      .max_new_tokens = request.tokens,
      .vocab = tokenizer.vocab_size(),
      .stop = tokenizer.end_of_text()};
  std::vector<std::string> samples;
  for (int64_t i = 0; i < request.samples; ++i) {
    options.sampling.seed = static_cast<uint64_t>(i);
    samples.push_back(request.prompt + tokenizer.decode(generate(*model.decoder, prompt, options)));
  }
  return samples;
}

ModelFacts facts_of(const Model& model) {
  const Decoder& decoder = *model.decoder;
  const int64_t T = model.config.model.sequence_length;
  return {.parts = parameters_by_part(decoder),
          .parameters = parameter_count(decoder),
          .length = T,
          .state_bytes = state_bytes(decoder, T),
          .forward_flops_per_token = forward_flops_per_token(decoder, T),
          .training_flops_per_token = training_flops_per_token(decoder, T),
          .samples = {}};
}

void add_model(RunRecord& run, const SampleRequest& request, Device device) {
  try {
    const Model model = load_model(run.path, device);
    run.model = facts_of(model);
    try {
      run.model->samples = samples_of(model, request);
    } catch (const Error& error) {
      run.why_no_samples = error.what();
    }
  } catch (const Error& error) {
    run.why_no_model = error.what();
  }
}

}  // namespace

RunRecord read_run(const std::string& path, const std::string& name, const SampleRequest& request,
                   Device device) {
  RunRecord run;
  run.path = path;
  run.name = name;
  {
    const HeldCheckpoint checkpoint(path);
    run.config = read_config(checkpoint.path() / "config.json", {}, NamedBy::Program);
    // A model alone has none.
    if (fs::exists(checkpoint.path() / "state.json")) {
      run.state = read_training_state(checkpoint.path());
    }
  }
  const fs::path folder(path);
  run.metrics = read_metrics(folder / "metrics.jsonl");
  run.machines = read_machines(folder);
  run.gates = read_gates(folder / "gates.jsonl");
  run.results = read_results(folder / "results");
  add_model(run, request, device);
  return run;
}

}  // namespace regla::app
