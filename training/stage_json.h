#pragma once

#include <string_view>
#include <vector>

#include "storage/json_fields.h"
#include "training/configuration.h"

// Included by .cpp files only, as storage/json_fields.h.
namespace regla {

/// A list of objects.
void read_value(const Json& json, std::string_view key, std::vector<StageConfig>& value);
Json to_json_value(const std::vector<StageConfig>& value);

}  // namespace regla
