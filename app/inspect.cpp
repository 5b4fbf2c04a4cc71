#include <cstdio>

#include "analyses/gate_analysis.h"
#include "app/command.h"
#include "app/options.h"
#include "core/memory.h"
#include "models/inspection.h"
#include "text/byte_tokenizer.h"
#include "training/memory_needs.h"
#include "training/stage_json.h"

namespace regla::app {
namespace {

struct InspectArguments {
  std::string run, config, device = "cpu";
  std::vector<std::string> set;
  SampleArguments text;
  bool memory = false, json = false;
};

/// The model of a run, or one as configured with initial weights. A BPE that is still to be trained
/// counts as many entries as are asked for.
Model model_of(const InspectArguments& arguments) {
  check(arguments.run.empty() != arguments.config.empty(),
        "[inspect] expected a run folder or --config FILE");
  check(arguments.config.empty() || arguments.text.data.empty(),
        "[inspect] --data looks at a trained run, not at --config");
  const Device device = opened_device(arguments.device);
  if (arguments.config.empty()) return load_model(arguments.run, device);
  TrainingConfig config = read_config(arguments.config, arguments.set);
  if (config.tokenizer != "byte" && config.tokenizer != "bpe") {
    return make_model(config, load_tokenizer(config.tokenizer), device);
  }
  if (config.tokenizer == "bpe" && config.model.vocab == 0) {
    config.model.vocab = padded_vocab(config.vocab_size);
  }
  return make_model(config, byte_tokenizer(), device);
}

/// A row per layer; with a text, how long its gates remember.
Json mixers(const Model& model, const InspectArguments& arguments) {
  std::vector<LayerGates> gates;
  if (!arguments.text.data.empty()) {
    const TextSample sample = arguments.text.sample(model);
    gates = observe_gates(*model.decoder, sample.ids, sample.reset);
  }
  Json rows = Json::array();
  const int64_t T = model.config.model.sequence_length;
  for (const MixerSize& size : mixers_by_layer(*model.decoder, T)) {
    rows.push_back({{"layer", size.layer},
                    {"type", size.type},
                    {"parameters", size.parameters},
                    {"forward_flops_per_token", size.forward_flops_per_token},
                    {"state_bytes", size.state_bytes}});
    if (gates.empty()) continue;
    rows.back()["memory_tokens"] = memory_json(memory_length(gates[rows.size() - 1]));
  }
  if (gates.empty()) return {{"layers", rows}};
  return {{"layers", rows}, {"memory_tokens", memory_json(memory_length(all_layers(gates)))}};
}

/// What training takes of the device's memory, and how much would fit. The model's weights are
/// others then.
Json memory_needs(const Model& model) {
  const TrainingConfig& config = model.config;
  const MemoryNeeds needs = measure_memory_needs(config, *model.decoder);
  const int64_t at_once = config.batch_size / config.micro_batches;
  Json json = {{"weights", needs.weights},     {"moments", needs.moments},
               {"rest", needs.rest},           {"per_sequence", needs.per_sequence},
               {"sequences_at_once", at_once}, {"training", needs.with(at_once)}};
  Memory& there = memory(model.decoder->device());
  there.trim();
  if (const std::optional<int64_t> left = there.available()) {
    const int64_t capacity = *left + there.stats().bytes_in_use;
    json["capacity"] = capacity;
    json["sequences_that_fit"] =
        std::max(int64_t{0}, (capacity - needs.with(0)) / needs.per_sequence);
  }
  return json;
}

Json description(const Model& model, const InspectArguments& arguments) {
  const Decoder& decoder = *model.decoder;
  const int64_t T = model.config.model.sequence_length;
  Json parts = Json::object(), state = Json::object();
  for (const PartSize& part : parameters_by_part(decoder)) parts[part.part] = part.parameters;
  for (const int64_t length : {T, 8 * T}) {
    state[std::to_string(length)] = state_bytes(decoder, length);
  }
  Json json = {{"configuration", write_fields(model.config)}};
  if (arguments.config.empty()) json["tokenizer_entries"] = model.tokenizer->vocab_size();
  json.update({{"parameters", {{"total", parameter_count(decoder)}, {"parts", parts}}},
               {"mixers", mixers(model, arguments)},
               {"flops_per_token",
                {{"sequence_length", T},
                 {"forward", forward_flops_per_token(decoder, T)},
                 {"training", training_flops_per_token(decoder, T)}}},
               {"state_bytes", state_bytes(decoder, T)},
               {"state_bytes_after_tokens", state}});
  if (arguments.memory || !decoder.device().is_cpu()) json["memory"] = memory_needs(model);
  return json;
}

void print_mixers(const Json& json) {
  std::printf("mixers: parameters, forward FLOPs per token, bytes of state per sequence%s\n",
              json.contains("memory_tokens") ? ", effective memory of the gates" : "");
  for (const Json& row : json["layers"]) {
    std::string line = grouped(row["parameters"].get<int64_t>()) + "  " +
                       rounded(row["forward_flops_per_token"].get<double>(), 8) + "  " +
                       grouped(row["state_bytes"].get<int64_t>());
    if (row.contains("memory_tokens")) line += "  " + memory_text(row["memory_tokens"]);
    print_row("  " + row["layer"].dump() + " " + row["type"].get<std::string>(), line);
  }
  if (!json.contains("memory_tokens")) return;
  print_row("  all", "effective memory " + memory_text(json["memory_tokens"]));
}

void print_memory(const Json& json) {
  const auto row = [&](const char* name, const char* key) {
    if (json.contains(key)) print_row(name, grouped(json[key].get<int64_t>()));
  };
  std::printf("bytes of memory to train with\n");
  row("  weights", "weights");
  row("  moments", "moments");
  row("  gradients and other", "rest");
  row("  each sequence at once", "per_sequence");
  const auto at_once = json["sequences_at_once"].get<int64_t>();
  print_row("  " + grouped(at_once) + " at once", grouped(json["training"].get<int64_t>()));
  row("  the device has", "capacity");
  row("sequences that fit", "sequences_that_fit");
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
  print_mixers(json["mixers"]);
  const Json& flops = json["flops_per_token"];
  std::printf("FLOPs per token at length %s\n", flops["sequence_length"].dump().c_str());
  print_row("  forward", rounded(flops["forward"].get<double>(), 8));
  print_row("  training", rounded(flops["training"].get<double>(), 8));
  std::printf("bytes of state per sequence\n");
  for (const auto& [length, bytes] : json["state_bytes_after_tokens"].items()) {
    print_row("  after " + length + " tokens", grouped(bytes.get<int64_t>()));
  }
  if (json.contains("memory")) print_memory(json["memory"]);
}

int inspect(const InspectArguments& arguments) {
  const Json json = description(model_of(arguments), arguments);
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
      "inspect",
      "Show a run's configuration, parameters, FLOPs per token and size of state; with --data, how "
      "long its gates remember");
  add_run(*command, arguments->run);
  add_config(*command, arguments->config, " instead of a run: nothing needs to be trained");
  add_set(*command, arguments->set, "with --config, set its keys");
  arguments->text.add_to(*command);
  add_device(*command, arguments->device);
  command->add_flag("--memory", arguments->memory,
                    "Measure what an update takes of memory; default: on a GPU");
  add_json(*command, arguments->json);
  command->callback([arguments, &action] { action = [arguments] { return inspect(*arguments); }; });
}

}  // namespace regla::app
