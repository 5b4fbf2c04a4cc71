#pragma once

#include "app/reproduce/work.h"
#include "training/checkpoint.h"

// Models that are trained for a comparison.
namespace regla::app {

/// Whether it is the teacher and came from elsewhere (`--teacher`), one for all seeds.
bool is_given(const Setting& setting, const Variant& variant);

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

/// How far a run is: nothing where there is none; of one that was linearised, 0 updates.
std::optional<TrainingState> state_of(const std::filesystem::path& run);

/// Where the configuration of a piece of work lies, and writes it there.
std::filesystem::path config_file(const Setting& setting, const std::string& name);
void write_config(const Setting& setting, const std::string& name, const Json& config);

}  // namespace regla::app
