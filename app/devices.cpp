#include "app/command.h"
#include "app/machine.h"
#include "app/options.h"
#include "backends/backend.h"
#include "core/processors.h"

namespace regla::app {
namespace {

/// The GPUs that can be opened, each with its name; what there is instead of the first.
struct Gpus {
  Json names = Json::object();
  std::string none;

  Gpus() {
    try {
      for (Device gpu = {Device::Kind::Cuda, 0};; ++gpu.index) {
        open_device(gpu);
        names[gpu.text()] = model_of(gpu);
      }
    } catch (const Error& error) {
      none = error.what();
    }
  }
};

int devices(bool json) {
  const Gpus gpus;
  const ThreadChoice choice = default_threads();
  Json report = host_description();
  report.update(
      {{"threads", choice.threads}, {"threads_from", choice.reason}, {"gpus", gpus.names}});
  if (json) {
    print_json(report);
    return 0;
  }
  for (const auto& [name, value] : report.items()) {
    if (name == "gpus") continue;
    print_row(name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  for (const auto& [name, model] : gpus.names.items()) print_row(name, model.get<std::string>());
  if (gpus.names.empty()) print_row("gpus", "none: " + gpus.none);
  return 0;
}

}  // namespace

void add_devices(CLI::App& program, Action& action) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = program.add_subcommand("devices", "Show what this build computes on");
  add_json(*command, *json);
  command->callback([json, &action] { action = [json] { return devices(*json); }; });
}

}  // namespace regla::app
