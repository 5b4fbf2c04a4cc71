#pragma once

#include <vector>

#include "app/picture.h"
#include "app/report/html.h"
#include "app/report/run_record.h"

// The parts of a report, each of all runs; empty where no run has what it is about.
namespace regla::app {

using Runs = std::vector<RunRecord>;

/// How the curves of run i look.
struct RunStyle {
  Colour colour;
  int dashes = 1;
};
RunStyle style_of(size_t i);

/// A swatch in that style with the run's name.
Html label_of(const Runs& runs, size_t i);

/// Loss, validation, learning rate, gradient norm and speed, each over the training with all runs.
/// Errors are those of `svg_part`, and one where gnuplot is not installed.
Html curves(const Runs& runs);

/// Histograms of gates at some steps of each run that recorded them, and how many were saturated.
Html gates(const Runs& runs);

Html overview(const Runs& runs);
Html evaluations(const Runs& runs);
Html samples(const Runs& runs, const SampleRequest& request);
Html sizes(const Runs& runs);
Html machines(const Runs& runs);
Html configurations(const Runs& runs);

/// The report as a file.
std::string report_page(const Runs& runs, const SampleRequest& request);

}  // namespace regla::app
