#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "training/checkpoint.h"

namespace regla::app {

/// What `regla eval` takes for tasks instead of a split.
struct TaskArguments {
  std::string tasks, folder, samples;
  std::optional<int64_t> shots, limit;
  bool whole_texts = false;

  void add_to(CLI::App& command);
  bool are_given() const { return !tasks.empty(); }
  /// An Error for tasks beside a split, or neither, and for what belongs to tasks without them.
  void check_given(bool has_split) const;
};

/// Scores tasks and prints the result. Every file is read before anything is computed.
int eval_tasks(const TaskArguments& arguments, const Model& model, bool json);

}  // namespace regla::app
