#pragma once

#include <string>
#include <string_view>

#include "analyses/gate_analysis.h"
#include "app/command.h"
#include "app/gnuplot.h"
#include "app/options.h"

namespace regla::app {

/// One analysis as it is written: numbers, and how gnuplot draws them.
struct Report {
  std::string name;         ///< of its files: <name>.json, .csv, .gp, .svg
  Json settings;            ///< what it was made from
  Json summary;             ///< null, or numbers that belong to it and are not drawn
  Json rows;                ///< list of flat objects with the same keys: the lines of the CSV
  std::string variables;    ///< lines of gnuplot before the script
  std::string_view script;  ///< of gnuplot; reads <name>.csv, writes the SVG to standard output
};

/// Makes the folder of a report, before any work is done for it. An Error when nothing can be
/// written there.
void make_report_folder(const std::string& folder);

/// Adds `--out`, that folder.
void add_report_folder(CLI::App& command, std::string& folder);
/// Adds the runs that an analysis looks at, as arguments or as `--run`.
CLI::Option* add_runs(CLI::App& command, std::vector<std::string>& runs, const std::string& help);

/// Writes a report into its folder, has the picture drawn if gnuplot is installed, and
/// says on standard output what is where. Errors: a folder or file that cannot be written, a
/// gnuplot that fails.
void write_report(const std::string& folder, const Report& report);

/// Statistics of some gates as flat JSON, and as a line to read.
Json gate_numbers(const LayerGates& layer);
std::string gate_sentence(const LayerGates& layer);

/// The names of runs in tables and pictures: their folders', made so that a CSV and gnuplot hold
/// them as they are, and each another.
std::vector<std::string> labels_of(const std::vector<std::string>& runs);

/// Each adds one analysis to `regla analyse`.
void add_variance(CLI::App& analyse, Action& action);
void add_gate_gradient(CLI::App& analyse, Action& action);
void add_gate_histogram(CLI::App& analyse, Action& action);
void add_saturation(CLI::App& analyse, Action& action);

// The scripts of gnuplot (plots.cpp).
extern const std::string_view kVariancePlot, kGateGradientPlot, kGateHistogramPlot, kSaturationPlot;

}  // namespace regla::app
