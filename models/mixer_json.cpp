#include "models/mixer_json.h"

#include <string>

namespace regla {
namespace {

MixerConfig read_mixer(const Json& json, std::string_view key) {
  MixerConfig mixer;
  const std::string prefix = std::string(key) + ".";
  if (json.is_string()) {
    read_value(json, prefix + "type", mixer.type);
    return preset(mixer.type);
  }
  check(json.is_object(), "[config] expected a mixer's name or an object for ", key, ", got ",
        shown(json));
  // The name's fields first, whatever the order of the keys; then those that are given.
  if (json.contains("type")) read_value(json["type"], prefix + "type", mixer.type);
  mixer = preset(mixer.type);
  read_fields(json, prefix, mixer);
  return mixer;
}

}  // namespace

void read_value(const Json& json, std::string_view key, std::vector<MixerConfig>& value) {
  value.clear();
  if (!json.is_array()) {
    value.push_back(read_mixer(json, key));
    return;
  }
  for (size_t i = 0; i < json.size(); ++i) {
    value.push_back(read_mixer(json[i], std::string(key) + "." + std::to_string(i)));
  }
}

Json to_json_value(const std::vector<MixerConfig>& value) {
  if (value.size() == 1) return write_fields(value.front());
  Json list = Json::array();
  for (const MixerConfig& mixer : value) list.push_back(write_fields(mixer));
  return list;
}

}  // namespace regla
