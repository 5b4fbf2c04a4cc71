#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/device.h"
#include "models/mixer_json.h"

namespace regla::app {

/// The processor, what this build makes of it, and the versions of the libraries that compute.
Json host_description();

/// What computes here: this program, its compiler, the host, threads, and the device with the name
/// of its model.
Json machine_description(Device device);

/// Notes in machines.jsonl of a run that a training begins, or goes on, at `step` here and now.
/// What the file says of later beginnings is dropped. Errors are those of LineLog.
void note_machine(const std::filesystem::path& run, int64_t step, Device device);

/// The lines of that file; what is no object is passed over.
std::vector<Json> read_machines(const std::filesystem::path& run);

}  // namespace regla::app
