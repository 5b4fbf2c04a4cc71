#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "models/mixer_json.h"
#include "text/corpus.h"
#include "training/checkpoint.h"
#include "training/text_sample.h"

namespace regla::app {

/// What the chosen sub-command does; its result is the exit code.
using Action = std::function<int()>;

/// Each adds one sub-command, which sets `action` when it is chosen.
void add_train(CLI::App& program, Action& action);
void add_eval(CLI::App& program, Action& action);
void add_generate(CLI::App& program, Action& action);
void add_logits(CLI::App& program, Action& action);
void add_inspect(CLI::App& program, Action& action);
void add_analyse(CLI::App& program, Action& action);
void add_report(CLI::App& program, Action& action);
void add_tokenizer(CLI::App& program, Action& action);
void add_bench(CLI::App& program, Action& action);
void add_import(CLI::App& program, Action& action);
void add_export(CLI::App& program, Action& action);
void add_linearise(CLI::App& program, Action& action);
void add_devices(CLI::App& program, Action& action);
void add_completion(CLI::App& program, Action& action);

/// Exit codes besides 0, as the README says them.
constexpr int kFailed = 1;         ///< training that diverged, no memory: the input may be fine
constexpr int kBadInput = 2;       ///< arguments, files, weights that give no numbers, disks
constexpr int kInterrupted = 130;  ///< Ctrl-C, a hang-up, a closed pipe; after saving

/// The device called cpu, cuda or cuda:<index>, ready for tensors. An Error where this build or
/// this machine has none.
Device opened_device(const std::string& name);

/// The tokenizer that a configuration names; `bpe` is trained on the train split.
std::unique_ptr<Tokenizer> tokenizer_for(const TrainingConfig& config, const Corpus& corpus);

/// What a tokenizer makes of bytes that are not UTF-8, for reading.
std::string fate_of_invalid(const Tokenizer& tokenizer);

/// Which text a command looks at: `--data`, `--split`, `--text`.
struct SampleArguments {
  std::string data, split = "valid", text;
  int64_t sequences = 32;

  void add_to(CLI::App& command);
  /// The sequences of a model's length, in its tokens. Errors: no data, no such split, one that is
  /// too short.
  TextSample sample(const Model& model) const;
};

/// The split that `--split` names (app/options.h).
Split split_named(const std::string& name);

/// How a command that does not train computes, where, and how it keeps the weights in memory:
/// `--precision`, `--weights` and `--device`.
struct InferenceArguments {
  std::string precision, weights, device = "cpu";

  void add_to(CLI::App& command);
  /// The model of a run, ready. An Error for weights that the precision does not read.
  Model load(const std::string& run) const;
};

/// JSON as text, for people and programs: in a path what is not UTF-8 is replaced, and no control
/// character stands as it is.
std::string json_text(const Json& value, int indent);
/// Writes JSON and a line end to standard output; indented, unless `indent` is -1.
void print_json(const Json& value, int indent = 2);
/// Writes one line, whatever is in the text: every line that may show a path, an argument or
/// something from a file goes through here.
void print_line(std::FILE* out, std::string_view text);
/// Writes `name   value` to standard output, values in one column.
void print_row(const std::string& name, const std::string& value);

/// An effective memory length (analyses/gate_analysis.h) in tokens; JSON has no infinity, so it is
/// the string "infinite" then, and null without gates.
Json memory_json(std::optional<double> tokens);
/// That value for reading.
std::string memory_text(const Json& memory);

/// Shows on a terminal, in a line that is written over, how far an evaluation is.
void show_scoring(int64_t done, int64_t total);
/// The same for the requests of a task.
void show_requests(const std::string& task, int64_t done, int64_t total);
/// The same for the steps of a training.
void show_steps(int64_t done, int64_t total);
/// Clears that line.
void end_scoring();

/// 12,345,678
std::string grouped(int64_t number);
/// printf's %.<digits>g
std::string rounded(double value, int digits = 6);
/// Seconds as 1 h 02 min, 5 min 03 s or 3 s.
std::string duration_text(double seconds);

}  // namespace regla::app
