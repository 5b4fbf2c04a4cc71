#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/mixer_json.h"
#include "text/token_cache.h"
#include "training/checkpoint.h"

namespace regla::app {

/// What `regla eval` takes to score a split by position.
struct LengthArguments {
  std::vector<int64_t> lengths;
  std::optional<int64_t> stride;
  std::string out;

  void add_to(CLI::App& command);
  bool are_given() const { return !lengths.empty(); }
  /// An Error for lengths beside tasks or a context, and for what belongs to lengths without them.
  void check_given(bool has_tasks, bool has_context) const;
};

/// Scores a text by position and prints the result; `source` says what text of which run it is.
/// With `--out` it is also written and drawn.
int eval_lengths(const LengthArguments& arguments, const Model& model, const TokenStream& text,
                 const Json& source, bool json);

}  // namespace regla::app
