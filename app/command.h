#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "core/dtype.h"
#include "models/json_fields.h"

namespace regla::app {

/// What the chosen sub-command does; its result is the exit code.
using Action = std::function<int()>;

/// Each adds one sub-command, which sets `action` when it is chosen.
void add_train(CLI::App& program, Action& action);
void add_eval(CLI::App& program, Action& action);
void add_generate(CLI::App& program, Action& action);
void add_logits(CLI::App& program, Action& action);
void add_inspect(CLI::App& program, Action& action);
void add_tokenizer(CLI::App& program, Action& action);
void add_bench(CLI::App& program, Action& action);
void add_devices(CLI::App& program, Action& action);

/// Exit codes besides 0.
constexpr int kFailed = 1;         ///< training that diverged, no memory: the input may be fine
constexpr int kBadInput = 2;       ///< arguments, files, configurations, disks
constexpr int kInterrupted = 130;  ///< Ctrl-C, after saving

/// An Error unless this build can run on the device, given as cpu, cuda or cuda:<index>.
void require_device(const std::string& device);

/// Adds `--weights f32|bf16`: how a command that does not train keeps the weights in memory.
void add_weights_option(CLI::App& command, std::string& weights);
/// The type that the option names; `otherwise` where it was not given.
DType weights_type(const std::string& weights, DType otherwise);

/// Writes JSON and a line end to standard output; indented, unless `indent` is -1.
void print_json(const Json& value, int indent = 2);
/// Writes `name   value` to standard output, values in one column.
void print_row(const std::string& name, const std::string& value);

/// Shows on a terminal, in a line that is written over, how far an evaluation is.
void show_scoring(int64_t done, int64_t total);
/// Clears that line.
void end_scoring();

/// 12,345,678
std::string grouped(int64_t number);
/// printf's %.<digits>g
std::string rounded(double value, int digits = 6);

}  // namespace regla::app
