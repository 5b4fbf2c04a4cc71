#include <cstdio>

#include "app/command.h"
#include "models/inspection.h"
#include "training/checkpoint.h"

namespace regla::app {
namespace {

struct InspectArguments {
  std::string run;
  bool json = false;
};

Json description(const Model& model) {
  const Decoder& decoder = *model.decoder;
  const int64_t T = model.config.model.sequence_length;
  Json parts = Json::object(), state = Json::object();
  for (const PartSize& part : parameters_by_part(decoder)) parts[part.part] = part.parameters;
  for (const int64_t length : {T, 8 * T}) {
    state[std::to_string(length)] = state_bytes(decoder, length);
  }
  return {{"configuration", write_fields(model.config)},
          {"tokenizer_entries", model.tokenizer->vocab_size()},
          {"parameters", {{"total", parameter_count(decoder)}, {"parts", parts}}},
          {"flops_per_token",
           {{"sequence_length", T},
            {"forward", forward_flops_per_token(decoder, T)},
            {"training", training_flops_per_token(decoder, T)}}},
          {"state_bytes", state_bytes(decoder, T)},
          {"state_bytes_after_tokens", state}};
}

void print_description(const Json& json) {
  std::printf("configuration\n");
  const Json configuration = json["configuration"].flatten();
  for (const auto& [key, value] : configuration.items()) {
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    print_row("  " + name, value.dump());
  }
  std::printf("parameters\n");
  for (const auto& [part, count] : json["parameters"]["parts"].items()) {
    print_row("  " + part, grouped(count.get<int64_t>()));
  }
  print_row("  total", grouped(json["parameters"]["total"].get<int64_t>()));
  const Json& flops = json["flops_per_token"];
  std::printf("FLOPs per token at length %s\n", flops["sequence_length"].dump().c_str());
  print_row("  forward", rounded(flops["forward"].get<double>(), 8));
  print_row("  training", rounded(flops["training"].get<double>(), 8));
  std::printf("bytes of state per sequence\n");
  for (const auto& [length, bytes] : json["state_bytes_after_tokens"].items()) {
    print_row("  after " + length + " tokens", grouped(bytes.get<int64_t>()));
  }
}

int inspect(const InspectArguments& arguments) {
  const Json json = description(load_model(arguments.run));
  if (arguments.json) {
    print_json(json);
  } else {
    print_description(json);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& program, Action& action) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = program.add_subcommand(
      "inspect", "Show a run's configuration, parameters, FLOPs per token and size of state");
  command->add_option("run", arguments->run, "run folder")->required();
  command->add_flag("--json", arguments->json, "print JSON");
  command->callback([arguments, &action] { action = [arguments] { return inspect(*arguments); }; });
}

}  // namespace regla::app
