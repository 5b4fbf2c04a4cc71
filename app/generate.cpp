#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "app/answers.h"
#include "app/options.h"
#include "core/parallel.h"
#include "models/saved_text.h"
#include "storage/files.h"
#include "text/unicode.h"

namespace regla::app {
namespace {

constexpr uint64_t kPromptsLimit = uint64_t{1} << 30;  // bytes of a file of prompts

struct GenerateArguments {
  std::string run, prompts, load_state, save_state;
  std::optional<std::string> prompt;
  InferenceArguments inference;
  AnswerOptions options;
  int64_t batch_size = 8;
  bool interactive = false, json = false;

  bool keeps_text() const { return interactive || !save_state.empty(); }
};

void validate(const GenerateArguments& arguments) {
  const bool is_single =
      arguments.prompt || arguments.keeps_text() || !arguments.load_state.empty();
  check(is_single || !arguments.prompts.empty(),
        "[generate] expected --prompt, --prompts, --load-state or --interactive");
  check(!is_single || arguments.prompts.empty(),
        "[generate] --prompts goes without --prompt, --interactive, --load-state and --save-state");
  arguments.options.generation.sampling.validate();
  for (const std::string& stop : arguments.options.stops) {
    check(!stop.empty(), "[generate] expected a --stop of at least one byte");
  }
}

/// The lines of a file, none of them empty.
std::vector<std::string> read_prompts_of(const std::string& path) {
  const std::string text = read_file(path, kPromptsLimit, NamedBy::User);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.pop_back();
    check(!line.empty(), "[generate] ", path,
          ": expected a prompt in every line, got none in line ", lines.size() + 1);
    lines.push_back(std::move(line));
    at = end + 1;
  }
  check(!lines.empty(), "[generate] ", path, ": expected a prompt in every line, got no line");
  return lines;
}

void write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// The origin of a text that is saved or loaded.
TextOrigin origin_of(const Model& model) {
  return {.tokenizer = std::to_string(model.tokenizer->hash()),
          .precision = std::string(name_of(model.config.precision))};
}

/// One answer after the other to a single text.
class Conversation {
 public:
  Conversation(const GenerateArguments& arguments, const Model& model)
      : arguments_(arguments), model_(model) {
    if (!arguments.load_state.empty()) {
      text_ = load_text(arguments.load_state, *model.decoder, origin_of(model));
    }
  }

  /// The prompt, if there is one, and its answer.
  void answer_prompt() {
    const std::string prompt = arguments_.prompt.value_or("");
    // Without a prompt a text that was loaded goes on as it would have.
    if (!prompt.empty() || text_.empty()) read(prompt);
    print(answer(prompt));
  }

  /// A line in, an answer out, until there is no line. Each but the first begins a line of the
  /// text.
  void answer_lines() {
    if (!arguments_.prompt.value_or("").empty()) read(*arguments_.prompt);
    const bool is_seen = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
    for (std::string line; show_sign(is_seen), std::getline(std::cin, line);) {
      const bool goes_on = line.empty() && !text_.empty();
      if (!goes_on) read(text_.empty() || ends_line() ? line : "\n" + line);
      print(answer(line));
    }
  }

  void save() const {
    if (arguments_.save_state.empty()) return;
    save_text(arguments_.save_state, *model_.decoder, text_, origin_of(model_));
  }

 private:
  static void show_sign(bool is_seen) {
    if (is_seen) write("> ");
  }

  void read(const std::string& prompt) {
    prompt_ids_ = ids_of(model_, prompt);
    const double from = seconds();
    read_prompt(model_, text_, prompt_ids_);
    read_s_ = seconds() - from;
  }

  /// Whether the text so far ends with the end of a line.
  bool ends_line() const { return model_.tokenizer->decode(text_.last).ends_with('\n'); }

  /// Writes what comes unless JSON does later. The prompt stands before it once there is something
  /// to follow it, so that an error stands alone.
  Answer answer(const std::string& prompt) {
    std::string before = arguments_.interactive ? "" : replace_invalid_utf8(prompt);
    const auto show = [&](const std::string& part) {
      if (arguments_.json) return;
      write(before + part);
      before.clear();
    };
    Answer answer = continued(model_, text_, arguments_.options, arguments_.keeps_text(), show);
    answer.prompt = prompt;
    answer.prompt_ids = std::exchange(prompt_ids_, {});
    answer.times.prompt_s += std::exchange(read_s_, 0);
    if (!arguments_.json) write(before + "\n");
    return answer;
  }

  void print(const Answer& answer) const {
    if (arguments_.json) print_json(json_of(answer), -1);
  }

  const GenerateArguments& arguments_;
  const Model& model_;
  TextState text_;
  std::vector<int32_t> prompt_ids_;  // read since the answer before
  double read_s_ = 0;
};

int answer_file(const GenerateArguments& arguments, const Model& model) {
  const std::vector<std::string> prompts = read_prompts_of(arguments.prompts);
  const auto show = [&](const Answer& answer) {
    if (!arguments.json) print_line(stdout, replace_invalid_utf8(answer.prompt) + answer.text);
  };
  const Answers answers = answer_all(model, prompts, arguments.options, arguments.batch_size, show);
  if (arguments.json) print_json(json_of(answers), -1);
  return 0;
}

int generate_text(const GenerateArguments& arguments) {
  validate(arguments);
  const Model model = arguments.inference.load(arguments.run);
  model.config.model.require_step_form();  // before anything is printed
  if (model.config.threads > 0) set_threads(static_cast<int>(model.config.threads));
  if (!arguments.prompts.empty()) return answer_file(arguments, model);
  Conversation conversation(arguments, model);
  arguments.interactive ? conversation.answer_lines() : conversation.answer_prompt();
  conversation.save();
  return 0;
}

void add_sampling(CLI::App& command, SamplingOptions& sampling) {
  add_number(command, "--temperature", sampling.temperature,
             "divides the scores; 0: always the most probable token");
  add_number(command, "--top-k", sampling.top_k, "draw from the k most probable tokens; 0: all");
  add_number(command, "--top-p", sampling.top_p,
             "draw from the most probable tokens that together reach p");
  add_number(command, "--min-p", sampling.min_p,
             "draw from tokens at least p times as probable as the likeliest; 0: all");
  add_number(command, "--repetition-penalty", sampling.repetition_penalty,
             "above 1 tokens that the prompt or the text has become less probable");
  add_number(command, "--seed", sampling.seed, "of the draws");
}

}  // namespace

void add_generate(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = program.add_subcommand("generate", "Continue texts");
  add_run(*command, arguments->run)->required();
  add_text(*command, "--prompt", arguments->prompt,
           "what to continue; an empty one starts at <|endoftext|>; default: none");
  add_text(*command, "--prompts", arguments->prompts,
           "continue every line of a file; default: none", "FILE");
  add_number(*command, "--batch-size", arguments->batch_size, "prompts of a file at once", 1);
  command->add_flag("--interactive", arguments->interactive,
                    "Read a line, write an answer, and so on: one text, until there is no line; "
                    "an empty line has it go on; default: one answer");
  add_number(*command, "--max-new-tokens", arguments->options.generation.max_new_tokens,
             "tokens to write at most, in each answer");
  add_sampling(*command, arguments->options.generation.sampling);
  add_texts(*command, "--stop", arguments->options.stops,
            "end an answer before this text, which is not shown; may be repeated; default: none",
            "TEXT");
  add_text(*command, "--save-state", arguments->save_state,
           "write where the text stands at the end (with --max-new-tokens 0: behind the prompt); "
           "default: nowhere",
           "FILE");
  add_text(*command, "--load-state", arguments->load_state,
           "go on where a text stood, with --prompt behind it; default: a new text", "FILE");
  arguments->inference.add_to(*command);
  add_json(*command, arguments->json,
           "print prompt, text, ids, times and bytes of state as JSON, a line for each answer");
  command->callback(
      [arguments, &action] { action = [arguments] { return generate_text(*arguments); }; });
}

}  // namespace regla::app
