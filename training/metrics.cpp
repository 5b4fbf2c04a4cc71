#include "training/metrics.h"

#include <limits>
#include <optional>

#include "core/check.h"
#include "storage/json_fields.h"

namespace regla {
namespace {

/// The object in a line that has a step; nothing where there is none.
std::optional<Json> object_of(std::string_view line) {
  auto object = object_in(line);
  if (object && !step_in(*object)) object.reset();
  return object;
}

/// What the object names; a null is a number that was not finite.
template <class M>
M metrics_of(const Json& object) {
  M metrics;
  fields(metrics, [&](const char* name, auto& member, const char*) {
    const auto found = object.find(name);
    if (found == object.end()) return;
    if constexpr (std::is_same_v<decltype(member), double&>) {
      if (found->is_null()) {
        member = std::numeric_limits<double>::quiet_NaN();
        return;
      }
    }
    read_value(*found, name, member);
  });
  return metrics;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t last_step,
                       int64_t last_validation)
    : log_(path, [=](std::string_view line) {
        const std::optional<Json> object = object_of(line);
        return object &&
               *step_in(*object) <= (object->contains("split") ? last_validation : last_step);
      }) {}

void MetricsLog::append(const StepMetrics& metrics) {
  Json line = write_fields(metrics);
  if (!metrics.objective.empty()) line["objective"] = metrics.objective;
  for (const auto& [name, value] : metrics.numbers) line[name] = value;
  log_.append(dumped(line));
}
void MetricsLog::append(const EvalMetrics& metrics) { log_.append(dumped(write_fields(metrics))); }

Metrics read_metrics(const std::filesystem::path& path) {
  Metrics all;
  for (const std::string& line : read_lines(path)) {
    try {
      const std::optional<Json> object = object_of(line);
      check(object.has_value(), "[metrics] expected an object with a step");
      if (object->contains("split")) {
        all.validations.push_back(metrics_of<EvalMetrics>(*object));
      } else {
        all.steps.push_back(metrics_of<StepMetrics>(*object));
        const auto objective = object->find("objective");
        if (objective != object->end()) {
          read_value(*objective, "objective", all.steps.back().objective);
        }
      }
    } catch (const Error&) {
      ++all.damaged;
    }
  }
  return all;
}

}  // namespace regla
