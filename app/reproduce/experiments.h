#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

// What the paper's tables and figures say, and what is trained to compare with it: data alone.
namespace regla::app {

/// At which size an experiment is done. Both parts are keys of a configuration (JSON).
struct Scale {
  std::string_view name;
  std::string_view training;  ///< of every run, also of those that begin from trained weights
  std::string_view model;     ///< of runs from scratch, besides the mixer and the seed
  std::string_view figure_4;  ///< of the models of Figure 4; empty: those of `analyse` itself
  std::string_view decoding;  ///< of the models of Figure 5
  /// Documents of each task, if nothing else is asked for; 0: all.
  int64_t documents;
  /// Tokens a second of training ReGLA, for a time before anything ran here: about that of two
  /// cores and of one H100.
  double cpu_speed, gpu_speed;
  /// About what a seed of Figures 2 to 5 takes, and where that is from.
  std::array<double, 4> figure_seconds;
  std::string_view figures_are;
};

/// One kind of model.
struct Variant {
  std::string_view name;      ///< of its runs' folders: <name>-<seed>
  std::string_view mixer;     ///< the key `mixer`, JSON
  bool alternates = false;    ///< every other layer from the second on, softmax attention between
  bool linearised = false;    ///< begins from the softmax model of the same seed, the teacher
  int64_t steps_of_160m = 0;  ///< updates at that scale; 0: the scale's
};

/// The rotation of queries and keys in every mixer: "full RoPE" (sections 4.1 and Appendix B).
constexpr std::string_view kRope = "full";

/// The softmax model that linearised ones begin from.
constexpr std::string_view kTeacher = "transformer";

/// One line of a table of perplexities.
struct PerplexityRow {
  std::string_view label, variant;
  double paper;  ///< 0: the paper has no such line
};

/// One of the tasks of Table 5, and which of its scores the table shows.
struct TaskColumn {
  std::string_view label, task, metric;
};

/// One line of Table 5, in percent, in the order of the tasks.
struct TaskRow {
  std::string_view label, variant;
  std::vector<double> without_examples, with_five;
};

/// A table of perplexities: 2, 4 or 6.
struct PerplexityTable {
  std::string_view title;
  std::vector<PerplexityRow> rows;
  std::vector<std::string_view> notes;
};

const Scale& scale_named(std::string_view name);
const Variant& variant_named(std::string_view name);
const PerplexityTable& perplexity_table(int64_t number);

std::span<const Variant> all_variants();
std::span<const TaskColumn> task_columns();
std::span<const TaskRow> task_rows();
std::span<const std::string_view> task_notes();

}  // namespace regla::app
