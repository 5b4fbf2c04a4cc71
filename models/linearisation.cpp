#include "models/linearisation.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "core/numbers.h"

namespace regla {
namespace {

constexpr std::array<std::string_view, 4> kProjections = {"query", "key", "value", "output"};

/// A parameter's name without its last part and its layer.
std::string group_of(const std::string& name) {
  const std::string group = name.substr(0, name.rfind('.'));
  constexpr std::string_view kLayers = "layers.";
  return group.starts_with(kLayers) ? group.substr(group.find('.', kLayers.size()) + 1) : group;
}

void count(const Parameter& parameter, std::vector<ParameterGroup>& groups) {
  const std::string name = group_of(parameter.name);
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [&](const ParameterGroup& group) { return group.name == name; });
  ParameterGroup& group =
      found == groups.end() ? groups.emplace_back(ParameterGroup{name, 0}) : *found;
  group.parameters += parameter.value.numel();
}

/// The part of a replaced mixer that a parameter belongs to, `query`, `gate.down` or the like;
/// absent: it is none of those mixers'.
std::optional<std::string> part_of_replaced(const std::string& name, const Linearisation& plan) {
  for (const int64_t layer : plan.layers) {
    const std::string mixer = "layers." + std::to_string(layer) + ".mixer.";
    if (name.starts_with(mixer)) {
      return name.substr(mixer.size(), name.rfind('.') - mixer.size());
    }
  }
  return std::nullopt;
}

bool is_kept(const std::string& name, const Linearisation& plan) {
  const auto part = part_of_replaced(name, plan);
  if (!part) return true;
  return plan.keep_projections &&
         std::find(kProjections.begin(), kProjections.end(), *part) != kProjections.end();
}

}  // namespace

std::vector<int64_t> layers_named(std::string_view text, int64_t layers) {
  std::vector<int64_t> found;
  const bool is_all = text == "all", is_alternate = text == "alternate";
  if (is_all || is_alternate) {
    for (int64_t i = is_all ? 0 : 1; i < layers; i += is_all ? 1 : 2) found.push_back(i);
    check(!found.empty(), "[linearise] no layers are alternate in a model of ", layers);
    return found;
  }
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string part(text.substr(start, comma - start));
    const std::optional<int64_t> layer = parse_integer(part);
    check(layer && *layer >= 0 && *layer < layers,
          "[linearise] expected layers as all, alternate or numbers from 0 to ", layers - 1,
          " with commas between, got \"", part, "\"");
    found.push_back(*layer);
    start = comma + 1;
  }
  std::sort(found.begin(), found.end());
  const auto twice = std::adjacent_find(found.begin(), found.end());
  check(twice == found.end(), "[linearise] expected each layer once, got ",
        twice == found.end() ? 0 : *twice, " twice");
  return found;
}

ModelConfig linearised_config(const ModelConfig& config, const Linearisation& plan) {
  check(!plan.layers.empty(), "[linearise] expected layers to replace, got none");
  std::vector<MixerConfig> mixers;
  for (int64_t layer = 0; layer < config.layers; ++layer) mixers.push_back(config.mixer_of(layer));
  for (const int64_t layer : plan.layers) {
    check(layer >= 0 && layer < config.layers, "[linearise] no layer ", layer, " in a model of ",
          config.layers);
    MixerConfig& mixer = mixers[static_cast<size_t>(layer)];
    const MixerConfig before = mixer;
    check(before.type == MixerType::Softmax, "[linearise] expected softmax attention in layer ",
          layer, ", got ", name_of(before.type));
    mixer = plan.mixer;
    if (!plan.keep_rotation) continue;
    mixer.rope = before.rope;
    mixer.rotary_pct = before.rotary_pct;
    mixer.rope_base = before.rope_base;
  }
  ModelConfig changed = config;
  const bool is_one = std::all_of(mixers.begin(), mixers.end(),
                                  [&](const MixerConfig& mixer) { return mixer == mixers[0]; });
  if (is_one) mixers.resize(1);
  changed.mixer = std::move(mixers);
  changed.validate();
  return changed.resolved();
}

std::unique_ptr<Decoder> linearised(const Decoder& trained, const Linearisation& plan,
                                    uint64_t seed, LinearisationReport& report) {
  std::map<std::string, const Parameter*> before;
  for (const Parameter* parameter : trained.parameters()) before[parameter->name] = parameter;
  auto decoder = std::make_unique<Decoder>(linearised_config(trained.config(), plan), seed,
                                           trained.dtype(), trained.device());
  for (Parameter* parameter : decoder->parameters()) {
    const auto found = before.find(parameter->name);
    if (!is_kept(parameter->name, plan)) {
      count(*parameter, found == before.end() ? report.added : report.replaced);
      continue;
    }
    const Parameter& old = *found->second;
    check(old.value.shape() == parameter->value.shape(), "[linearise] cannot keep ",
          parameter->name, " of the shape ", old.value.shape(), ": the mixer's has ",
          parameter->value.shape());
    parameter->value = old.value;
    if (parameter->copy) parameter->copy = old.copy;
    count(*parameter, report.kept);
  }
  return decoder;
}

}  // namespace regla
