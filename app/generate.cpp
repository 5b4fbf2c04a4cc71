#include <algorithm>
#include <cstdio>
#include <span>

#include "app/command.h"
#include "app/options.h"
#include "core/parallel.h"
#include "models/generation.h"
#include "text/batches.h"
#include "text/unicode.h"
#include "training/checkpoint.h"

namespace regla::app {
namespace {

struct GenerateArguments {
  std::string run, prompt;
  InferenceArguments inference;
  GenerationOptions options;
  bool json = false;
};

/// What counts of a prompt: all of it, or what no reset makes the model forget.
std::span<const int32_t> remembered(const Model& model, std::span<const int32_t> prompt) {
  if (!model.config.reset_at_documents) return prompt;
  const std::vector<int32_t> resets = document_resets(prompt, model.tokenizer->end_of_text());
  const auto last = std::find(resets.rbegin(), resets.rend(), 1);
  return last == resets.rend() ? prompt
                               : prompt.last(static_cast<size_t>(last - resets.rbegin()) + 1);
}

int generate_text(const GenerateArguments& arguments) {
  arguments.options.sampling.validate();
  const Model model = arguments.inference.load(arguments.run);
  model.config.model.require_step_form();  // before anything is printed
  if (model.config.threads > 0) set_threads(static_cast<int>(model.config.threads));
  const Tokenizer& tokenizer = *model.tokenizer;
  std::vector<int32_t> prompt = tokenizer.encode_with_specials(arguments.prompt);
  if (prompt.empty()) prompt.push_back(tokenizer.end_of_text());
  GenerationOptions options = arguments.options;
  options.vocab = tokenizer.vocab_size();
  options.stop = tokenizer.end_of_text();
  const std::span<const int32_t> seen = remembered(model, prompt);
  if (arguments.json) {
    const std::vector<int32_t> ids = generate(*model.decoder, seen, options);
    print_json({{"prompt", replace_invalid_utf8(arguments.prompt)},
                {"text", replace_invalid_utf8(tokenizer.decode(ids))},
                {"ids", ids},
                {"prompt_ids", prompt}},
               -1);
    return 0;
  }
  const auto write = [](const std::string& bytes) {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  };
  // Once there is something to follow it, so that an error stands alone.
  std::string text = arguments.prompt;
  generate(*model.decoder, seen, options, [&](int32_t id) {
    write(text + tokenizer.decode({&id, 1}));
    text.clear();
    return true;
  });
  write(text + "\n");
  return 0;
}

}  // namespace

void add_generate(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<GenerateArguments>();
  SamplingOptions& sampling = arguments->options.sampling;
  CLI::App* command = program.add_subcommand("generate", "Continue a text");
  add_run(*command, arguments->run)->required();
  add_text(*command, "--prompt", arguments->prompt,
           "what to continue; an empty one starts at <|endoftext|>")
      ->required();
  add_number(*command, "--max-new-tokens", arguments->options.max_new_tokens,
             "tokens to write at most");
  add_number(*command, "--temperature", sampling.temperature,
             "divides the scores; 0: always the most probable token");
  add_number(*command, "--top-k", sampling.top_k, "draw from the k most probable tokens; 0: all");
  add_number(*command, "--top-p", sampling.top_p,
             "draw from the most probable tokens that together reach p");
  add_number(*command, "--seed", sampling.seed, "of the draws");
  arguments->inference.add_to(*command);
  add_json(*command, arguments->json, "print prompt, text, ids and prompt_ids as JSON");
  command->callback(
      [arguments, &action] { action = [arguments] { return generate_text(*arguments); }; });
}

}  // namespace regla::app
