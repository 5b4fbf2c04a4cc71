#include "analyses/gate_log.h"

#include "core/check.h"
#include "storage/json_fields.h"

namespace regla {
namespace {

Json line_of(int64_t step, const LayerGates& layer) {
  const GateStatistics& s = layer.gates;
  Json bins = Json::array();
  for (const int64_t count : s.bins) bins.push_back(s.mean(static_cast<double>(count)));
  return {{"step", step},
          {"layer", layer.layer < 0 ? Json("all") : Json(layer.layer)},
          {"gates", s.count},
          {"mean", s.mean(s.sum)},
          {"std", s.deviation()},
          {"below_0.05", s.mean(static_cast<double>(s.low))},
          {"above_0.95", s.mean(static_cast<double>(s.high))},
          {"mean_log_decay", layer.mean_log_decay},
          {"bins", bins}};
}

/// The member of an object; an Error where it is not there or of another type.
template <class T>
T member(const Json& object, const char* name) {
  check(object.contains(name), "[gates] expected ", name);
  T value{};
  read_value(object[name], name, value);
  return value;
}

GateRecord record_of(const Json& line) {
  GateRecord record = {.step = member<int64_t>(line, "step"),
                       .low = member<double>(line, "below_0.05"),
                       .high = member<double>(line, "above_0.95")};
  const Json& bins = line.at("bins");
  check(bins.is_array() && bins.size() == record.bins.size(), "[gates] expected bins");
  for (size_t i = 0; i < bins.size(); ++i) read_value(bins[i], "bins", record.bins[i]);
  return record;
}

}  // namespace

GateLog::GateLog(const std::filesystem::path& path, int64_t last_step)
    : log_(path, [last_step](std::string_view line) {
        const auto object = object_in(line);
        const auto step = object ? step_in(*object) : std::nullopt;
        return step && *step <= last_step;
      }) {}

void GateLog::append(int64_t step, const std::vector<LayerGates>& layers) {
  const LayerGates all = all_layers(layers);
  if (!all.gated()) return;
  log_.append(dumped(line_of(step, all)));
  for (const LayerGates& layer : layers) {
    if (layer.gated()) log_.append(dumped(line_of(step, layer)));
  }
}

std::vector<GateRecord> read_gates(const std::filesystem::path& path) {
  std::vector<GateRecord> records;
  for (const std::string& text : read_lines(path)) {
    const auto line = object_in(text);
    if (!line || !line->contains("bins") || line->value("layer", Json()) != "all") continue;
    try {
      records.push_back(record_of(*line));
    } catch (const Error&) {
      continue;
    }
  }
  return records;
}

}  // namespace regla
