#pragma once

#include "app/reproduce/work.h"

// Models that are trained for a comparison.
namespace regla::app {

/// The name and folder of a run: <folder>/<variant>-<seed>.
std::string name_of_run(const Variant& variant, int64_t seed);
std::filesystem::path folder_of_run(const Setting& setting, const Variant& variant, int64_t seed);

/// The configuration that a run is trained with, JSON; of a linearised one without what it has
/// from its teacher.
std::string config_of_run(const Setting& setting, const Variant& variant, int64_t seed);

/// Trains a run to its end and does `evaluations` of it then. An Error where the folder holds a run
/// of another configuration.
Work work_of_run(const Setting& setting, const Variant& variant, int64_t seed,
                 const std::vector<Step>& evaluations);

/// A folder's trained run: whether it is at its end.
bool is_trained(const Setting& setting, const Variant& variant, int64_t seed);

}  // namespace regla::app
