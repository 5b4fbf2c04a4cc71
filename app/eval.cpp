#include "app/command.h"
#include "app/eval_lengths.h"
#include "app/eval_tasks.h"
#include "app/options.h"
#include "core/parallel.h"
#include "models/finite.h"
#include "scoring/perplexity.h"
#include "text/corpus.h"
#include "training/checkpoint.h"

namespace regla::app {
namespace {

struct EvalArguments {
  std::string run, data, split = "test", text, context;
  TaskArguments tasks;
  LengthArguments lengths;
  InferenceArguments inference;
  bool without_softmax = false;
  bool json = false;
};

void print_result(const EvalArguments& arguments, const std::string& file, const Model& model,
                  const EvaluationOptions& options, const TokenStream& text,
                  const Evaluation& result) {
  const Json json = {{"split", arguments.split},
                     {"file", file},
                     {"context", std::string(name_of(options.context))},
                     {"precision", std::string(name_of(model.config.precision))},
                     {"weights", name_of(model.decoder->weights_type())},
                     {"tokens", result.tokens},
                     {"loss", result.loss()},
                     {"ppl", result.perplexity()},
                     {"word_ppl", result.word_perplexity()},
                     {"bits_per_byte", result.bits_per_byte()},
                     {"bytes", text.counts().bytes},
                     {"words", text.counts().words},
                     {"line_ends", text.counts().line_ends},
                     {"invalid_bytes", text.counts().invalid_bytes}};
  if (arguments.json) return print_json(json);
  for (const auto& [name, value] : json.items()) {
    if (name == "invalid_bytes" && value == 0) continue;
    print_row(name, value.is_string()         ? value.get<std::string>()
                    : value.is_number_float() ? rounded(value.get<double>())
                                              : value.dump());
  }
}

int eval(const EvalArguments& arguments) {
  arguments.tasks.check_given(!arguments.data.empty());
  arguments.lengths.check_given(arguments.tasks.are_given(), !arguments.context.empty());
  const Model model = arguments.inference.load(arguments.run);
  if (model.config.threads > 0) set_threads(static_cast<int>(model.config.threads));
  if (arguments.without_softmax) {
    check(model.decoder->leave_out_mixers(MixerType::Softmax) > 0, "[eval] ", arguments.run,
          " has no softmax layers to leave out");
  }
  if (arguments.tasks.are_given()) return eval_tasks(arguments.tasks, model, arguments.json);
  const Corpus corpus =
      Corpus::open(arguments.data, arguments.text.empty() ? model.config.text : arguments.text);
  const Split split = split_named(arguments.split);
  const std::string file = corpus.file(split);
  const TokenStream text = tokenize_split(corpus, split, *model.tokenizer);
  if (arguments.lengths.are_given()) {
    return eval_lengths(arguments.lengths, model, text,
                        {{"run", arguments.run}, {"split", arguments.split}, {"file", file}},
                        arguments.json);
  }
  EvaluationOptions options = model.config.evaluation();
  if (!arguments.context.empty()) {
    options.context = arguments.context == "window" ? Context::Window : Context::Carried;
  }
  const Evaluation result = evaluate(*model.decoder, text, model.tokenizer->end_of_text(), options,
                                     [](int64_t done, int64_t total) {
                                       show_scoring(done, total);
                                       return true;
                                     });
  end_scoring();
  check_finite(*model.decoder, Tensor::full({1}, result.loss(), DType::F64), "[eval] the loss is");
  print_result(arguments, file, model, options, text, result);
  return 0;
}

}  // namespace

void add_eval(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = program.add_subcommand(
      "eval", "Score every token of a split once, a split by position, or tasks");
  add_run(*command, arguments->run)->required();
  add_text(*command, "--data", arguments->data, "folder with the files of splits, or one file",
           "FILE");
  add_split(*command, arguments->split);
  add_choice(*command, "--context", arguments->context, {"window", "carried"},
             "window: windows of length T every T/2; carried: one pass with carried state; "
             "default: what training did");
  add_kind(*command, arguments->text);
  arguments->lengths.add_to(*command);
  command->add_flag("--without-softmax-layers", arguments->without_softmax,
                    "leave out what softmax attention adds, with or without a window: what a "
                    "hybrid's other layers can do alone");
  arguments->tasks.add_to(*command);
  arguments->inference.add_to(*command);
  add_json(*command, arguments->json);
  command->callback([arguments, &action] { action = [arguments] { return eval(*arguments); }; });
}

}  // namespace regla::app
