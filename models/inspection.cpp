#include "models/inspection.h"

#include <algorithm>

namespace regla {
namespace {

/// Where a parameter called `layers.<layer>.<rest>` belongs.
std::string part_in_layer(const ModelConfig& config, const std::string& name) {
  const size_t dot = name.find('.', std::string("layers.").size());
  const int64_t layer = std::stoll(name.substr(std::string("layers.").size()));
  const std::string rest = name.substr(dot + 1);
  if (rest.starts_with("mlp.")) return "mlp";
  if (!rest.starts_with("mixer.")) return "norms";
  const std::string projection = rest.substr(std::string("mixer.").size());
  return std::string(name_of(config.mixer_of(layer).type)) + "." +
         projection.substr(0, projection.find('.'));
}

std::string part_of(const ModelConfig& config, const std::string& name) {
  if (name.starts_with("layers.")) return part_in_layer(config, name);
  if (name.starts_with("embed_in")) return "embedding";
  return name.starts_with("embed_out") ? "head" : "norms";
}

/// Operations per token of a matrix; 0 for other parameters.
double matrix_flops(const Parameter& parameter) {
  return is_matrix(parameter.role) ? 2 * static_cast<double>(parameter.value.numel()) : 0;
}

}  // namespace

std::vector<PartSize> parameters_by_part(const Decoder& decoder) {
  std::vector<PartSize> parts;
  for (const Parameter* parameter : decoder.parameters()) {
    const std::string part = part_of(decoder.config(), parameter->name);
    auto found = std::find_if(parts.begin(), parts.end(),
                              [&](const PartSize& known) { return known.part == part; });
    if (found == parts.end()) found = parts.insert(parts.end(), {part, 0});
    found->parameters += parameter->value.numel();
  }
  return parts;
}

int64_t parameter_count(const Decoder& decoder) {
  int64_t count = 0;
  for (const Parameter* parameter : decoder.parameters()) count += parameter->value.numel();
  return count;
}

std::vector<MixerSize> mixers_by_layer(const Decoder& decoder, int64_t length) {
  std::vector<MixerSize> sizes;
  for (const Block& block : decoder.blocks()) {
    const auto layer = static_cast<int64_t>(sizes.size());
    MixerSize size = {.layer = layer,
                      .type = std::string(name_of(decoder.config().mixer_of(layer).type)),
                      .parameters = 0,
                      .forward_flops_per_token = block.mixer->flops_per_token(length),
                      .state_bytes = block.mixer->state_bytes(length, decoder.dtype())};
    ParameterList parameters;
    block.mixer->parameters(parameters);
    for (const Parameter* parameter : parameters) {
      size.parameters += parameter->value.numel();
      size.forward_flops_per_token += matrix_flops(*parameter);
    }
    sizes.push_back(size);
  }
  return sizes;
}

double forward_flops_per_token(const Decoder& decoder, int64_t length) {
  const ModelConfig& config = decoder.config();
  // A tied head is one more matrix, under the embedding's name.
  double flops = config.tie_embeddings ? 2 * static_cast<double>(config.vocab * config.hidden) : 0;
  for (const Parameter* parameter : decoder.parameters()) flops += matrix_flops(*parameter);
  for (const Block& block : decoder.blocks()) flops += block.mixer->flops_per_token(length);
  return flops;
}

double training_flops_per_token(const Decoder& decoder, int64_t length) {
  return 3 * forward_flops_per_token(decoder, length);
}

int64_t state_bytes(const Decoder& decoder, int64_t length) {
  int64_t bytes = 0;
  for (const Block& block : decoder.blocks()) {
    bytes += block.mixer->state_bytes(length, decoder.dtype());
  }
  return bytes;
}

}  // namespace regla
