#include "layers/gates.h"

#include <cmath>

namespace regla {
namespace {

int64_t inner_width(const MixerConfig& config, int64_t hidden) {
  return config.gate_projection == GateProjection::LowRank ? config.gate_rank : hidden;
}

}  // namespace

GateLinear::GateLinear(const MixerConfig& config, const ParameterFactory& make,
                       const std::string& name, int64_t hidden, int64_t outputs, double deviation)
    : up(make, name, inner_width(config, hidden), outputs, deviation) {
  if (config.gate_projection == GateProjection::LowRank) {
    down.emplace(make, name + ".down", hidden, config.gate_rank, deviation);
  }
}

void GateLinear::parameters(ParameterList& list) {
  if (down) down->parameters(list);
  up.parameters(list);
}

ForgetGate::ForgetGate(const MixerConfig& config, const MixerSizes& sizes, int64_t axis_size,
                       const ParameterFactory& make, const std::string& name)
    : config_(config), heads_(sizes.heads), axis_size_(axis_size) {
  if (config.gate == Gate::None) return;
  const bool per_head = config.gate_projection == GateProjection::PerHead;
  const int64_t outputs = per_head ? heads_ : heads_ * axis_size;
  const auto projection = [&](const char* which, double bias, double (*uniform)(double)) {
    const std::string full = name + "." + which;
    GateLinear gate(config, make, full, sizes.hidden, outputs, sizes.deviation);
    if (config.gate_bias_init == GateBiasInit::Uniform) {
      const double edge = 1 / static_cast<double>(std::max<int64_t>(outputs, 2));
      gate.up.bias = make.uniform(name + ".gate_bias_init", {outputs}, edge, 1 - edge, uniform);
      gate.up.bias.name = full + ".bias";
      gate.up.bias.decay = false;
    } else {
      gate.up.bias = make.constant(full + ".bias", {outputs}, bias);
    }
    return gate;
  };
  // Gu 2020: the forget gates start uniform, the refining gates mirror them.
  forget_ = projection("gate", config.gate_bias, [](double u) { return std::log(u / (1 - u)); });
  if (config.gate == Gate::Refined) {
    refine_ =
        projection("refine", config.refine_bias, [](double u) { return std::log((1 - u) / u); });
  }
}

LogDecays ForgetGate::operator()(const Var& x) {
  if (!forget_) return {};
  const Var log_decay = refine_ ? refined_gate((*forget_)(x), (*refine_)(x))  // Eq. 16
                                : log_sigmoid((*forget_)(x));
  if (config_.gate_projection == GateProjection::PerHead) {
    return {.key = {}, .value = {}, .scalar = log_decay};
  }
  const Var heads = reshape(log_decay, {x.dim(0), x.dim(1), heads_, axis_size_});
  if (config_.gate_axis == GateAxis::Key) return {.key = heads, .value = {}, .scalar = {}};
  return {.key = {}, .value = heads, .scalar = {}};
}

void ForgetGate::parameters(ParameterList& list) {
  if (forget_) forget_->parameters(list);
  if (refine_) refine_->parameters(list);
}

}  // namespace regla
