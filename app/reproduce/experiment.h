#pragma once

#include "app/reproduce/comparison.h"
#include "app/reproduce/work.h"
#include "text/corpus.h"

namespace regla::app {

/// A table or figure: what has to be done for it, and what comes of it.
struct Experiment {
  std::string name;         ///< of its files: <name>.md and .json
  std::vector<Work> works;  ///< in the order in which they are best begun
  /// The comparison, once all is done. Cells of trainings that diverged lack that seed.
  std::function<Comparison()> compare;
};

/// Table 2, 4 or 6 (perplexities) or 5 (tasks).
Experiment table(const Setting& setting, int64_t number);

/// Figure 2 (spread of inner products), 3 (gradient of the gate), 4 (gates before and after
/// training) or 5 (time and memory of decoding).
Experiment figure(const Setting& setting, int64_t number);

/// Figure 5, which needs no text.
Experiment decoding(const Setting& setting);

/// An Error where an experiment that needs text was given none.
void need_data(const Setting& setting);

/// Seeds from 0 on, in words.
std::string seeds_text(int64_t seeds);

/// The name of the file of a split.
std::string name_of_data(const Setting& setting, Split split);

/// What several findings were made on.
std::string machines_of(const std::vector<Finding>& findings);

}  // namespace regla::app
