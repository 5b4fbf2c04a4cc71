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

bool is_before(std::string_view line, int64_t step) {
  const auto object = object_in(line);
  const auto own = object ? step_in(*object) : std::nullopt;
  return own && *own < step;
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
    if (auto object = object_in(line)) machines.push_back(*std::move(object));
  }
  return machines;
}

}  // namespace regla::app
