#include "app/command.h"
#include "app/options.h"
#include "backends/cpu/info.h"
#include "core/processors.h"

namespace regla::app {
namespace {

int devices(bool json) {
  const ThreadChoice choice = default_threads();
  const Json report = {{"processor", cpu::processor_model()},
                       {"architecture", cpu::architecture()},
                       {"instruction_sets", cpu::instruction_sets()},
                       {"threads", choice.threads},
                       {"threads_from", choice.reason},
                       {"onednn", cpu::onednn_version()},
                       {"eigen", cpu::eigen_version()},
                       {"gpus", Json::array()}};
  if (json) {
    print_json(report);
    return 0;
  }
  for (const auto& [name, value] : report.items()) {
    print_row(name, name == "gpus"      ? "none (built without CUDA)"
                    : value.is_string() ? value.get<std::string>()
                                        : value.dump());
  }
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
