#include "training/stage_json.h"

#include <string>

namespace regla {

void read_value(const Json& json, std::string_view key, std::vector<StageConfig>& value) {
  check(json.is_array(), "[config] expected a list of objects for ", key, ", got ", shown(json));
  check(json.size() <= kMostStages, "[config] expected at most ", kMostStages, " ", key, ", got ",
        json.size());
  value.assign(json.size(), {});
  for (size_t i = 0; i < json.size(); ++i) {
    read_fields(json[i], std::string(key) + "." + std::to_string(i) + ".", value[i]);
  }
}

Json to_json_value(const std::vector<StageConfig>& value) {
  Json list = Json::array();
  for (const StageConfig& stage : value) list.push_back(write_fields(stage));
  return list;
}

}  // namespace regla
