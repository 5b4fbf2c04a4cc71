#pragma once

#include <string_view>
#include <vector>

#include "layers/mixer_config.h"
#include "storage/json_fields.h"

// Included by .cpp files only, as storage/json_fields.h.
namespace regla {

/// A type name, an object, or a list of those.
void read_value(const Json& json, std::string_view key, std::vector<MixerConfig>& value);
/// One mixer as an object, several as a list.
Json to_json_value(const std::vector<MixerConfig>& value);

}  // namespace regla
