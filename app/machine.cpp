#include "app/machine.h"

#include <ctime>

#include "backends/backend.h"
#include "backends/cpu/info.h"
#include "core/check.h"
#include "core/parallel.h"
#include "storage/json_fields.h"
#include "storage/line_log.h"

namespace regla::app {
namespace {

constexpr const char* kFile = "machines.jsonl";

std::string time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// A line's object; null where it is none.
Json object_of(std::string_view line) {
  try {
    Json object = parse_json(line, "[machines]");
    return object.is_object() ? object : Json();
  } catch (const Error&) {
    return {};
  }
}

bool is_before(std::string_view line, int64_t step) {
  const Json object = object_of(line);
  const auto found = object.find("step");
  return found != object.end() && found->is_number_integer() && found->get<int64_t>() < step;
}

}  // namespace

Json host_description() {
  return {{"processor", cpu::processor_model()},
          {"architecture", cpu::architecture()},
          {"instruction_sets", cpu::instruction_sets()},
          {"bf16_products", cpu::bfloat16_products()},
          {"onednn", cpu::onednn_version()},
          {"eigen", cpu::eigen_version()}};
}

Json machine_description(Device device) {
  Json json = {{"regla", REGLA_VERSION}, {"compiler", REGLA_COMPILER}};
  json.update(host_description());
  json.update({{"threads", threads()}, {"device", device.text()}});
  if (!device.is_cpu()) json["gpu"] = model_of(device);
  return json;
}

void note_machine(const std::filesystem::path& run, int64_t step, Device device) {
  LineLog log(run / kFile, [step](std::string_view line) { return is_before(line, step); });
  Json line = {{"step", step}, {"started", time_now()}};
  line.update(machine_description(device));
  log.append(dumped(line));
}

std::vector<Json> read_machines(const std::filesystem::path& run) {
  std::vector<Json> machines;
  for (const std::string& line : read_lines(run / kFile)) {
    Json object = object_of(line);
    if (!object.is_null()) machines.push_back(std::move(object));
  }
  return machines;
}

}  // namespace regla::app
