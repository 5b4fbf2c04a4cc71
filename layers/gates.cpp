#include "layers/gates.h"

#include <algorithm>
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

namespace {

/// The projection of a gate with its initial bias.
GateLinear gate_linear(const MixerConfig& config, const MixerSizes& sizes, int64_t outputs,
                       const ParameterFactory& make, const std::string& name,
                       const std::string& which, const std::string& suffix, double bias,
                       double (*uniform)(double)) {
  const std::string full = name + "." + which + suffix;
  GateLinear gate(config, make, full, sizes.hidden, outputs, sizes.deviation);
  if (config.gate_bias_init == GateBiasInit::Uniform) {
    // The forget and the refining gate of an axis read the same draws.
    const double edge = 1 / static_cast<double>(std::max<int64_t>(outputs, 2));
    const std::string draws = name + ".gate_bias_init" + suffix;
    gate.up.bias = make.uniform(draws, {outputs}, Role::Bias, edge, 1 - edge, uniform);
    gate.up.bias.name = full + ".bias";
  } else {
    gate.up.bias = make.constant(full + ".bias", {outputs}, Role::Bias, bias);
  }
  return gate;
}

// Gu 2020: gates start uniform, u = sigma(log(u / (1 - u))), and refining gates mirror them.
double uniform_gate(double u) { return std::log(u / (1 - u)); }
double mirrored_gate(double u) { return std::log((1 - u) / u); }

}  // namespace

AxisGate::AxisGate(const MixerConfig& config, const MixerSizes& sizes, int64_t outputs,
                   const ParameterFactory& make, const std::string& name, const std::string& suffix)
    : suffix_(suffix),
      temperature_(config.gate_temperature),
      dtype_(config.gate_projection == GateProjection::PerHead ? make.sums() : make.dtype()),
      forget_(gate_linear(config, sizes, outputs, make, name, "gate", suffix, config.gate_bias,
                          uniform_gate)) {
  if (config.gate == Gate::Refined) {
    refine_ = gate_linear(config, sizes, outputs, make, name, "refine", suffix, config.refine_bias,
                          mirrored_gate);
  }
}

Var AxisGate::operator()(const Var& x, const Segment& segment) {
  const Var z_g = forget_(x, dtype_), z_r = refine_ ? (*refine_)(x, dtype_) : Var{};
  const DType type = temperature_ == 1 ? dtype_ : sum_type(dtype_);
  const Var log_gate = refine_ ? refined_gate(z_g, z_r, type)  // Eq. 16
                               : log_sigmoid(z_g, type);
  const Var log_decay = temperature_ == 1 ? log_gate : scale(log_gate, 1 / temperature_, dtype_);
  if (segment.observer) {
    segment.show("gate" + suffix_, z_g);
    segment.show("refine" + suffix_, z_r);
    segment.show("log_decay" + suffix_, log_decay);
  }
  return log_decay;
}

void AxisGate::add_layers(StepLayers& layers) {
  layers.emplace_back(&forget_.up, dtype_);
  if (refine_) layers.emplace_back(&refine_->up, dtype_);
}

void AxisGate::parameters(ParameterList& list) {
  forget_.parameters(list);
  if (refine_) refine_->parameters(list);
}

ForgetGate::ForgetGate(const MixerConfig& config, const MixerSizes& sizes, int64_t K, int64_t V,
                       const ParameterFactory& make, const std::string& name)
    : heads_(sizes.heads), K_(K), V_(V) {
  if (config.gate == Gate::None) return;
  if (config.gate_projection == GateProjection::PerHead) {
    scalar_.emplace(config, sizes, heads_, make, name, "");
    return;
  }
  const bool both = config.gate_axis == GateAxis::Both;
  if (both || config.gate_axis == GateAxis::Key) {
    key_.emplace(config, sizes, heads_ * K, make, name, both ? "_key" : "");
  }
  if (both || config.gate_axis == GateAxis::Value) {
    value_.emplace(config, sizes, heads_ * V, make, name, both ? "_value" : "");
  }
}

LogDecays ForgetGate::operator()(const Var& x, const Segment& segment) {
  const auto heads = [&](const Var& log_decay, int64_t size) {
    return reshape(log_decay, {x.dim(0), x.dim(1), heads_, size});
  };
  LogDecays decays;
  if (scalar_) decays.scalar = (*scalar_)(x, segment);
  if (key_) decays.key = heads((*key_)(x, segment), K_);
  if (value_) decays.value = heads((*value_)(x, segment), V_);
  return decays;
}

void ForgetGate::add_layers(StepLayers& layers) {
  for (std::optional<AxisGate>* gate : {&scalar_, &key_, &value_}) {
    if (*gate) (*gate)->add_layers(layers);
  }
}

void ForgetGate::parameters(ParameterList& list) {
  for (std::optional<AxisGate>* gate : {&scalar_, &key_, &value_}) {
    if (*gate) (*gate)->parameters(list);
  }
}

WriteStrength::WriteStrength(const MixerConfig& config, const MixerSizes& sizes,
                             const ParameterFactory& make, const std::string& name)
    : gate_(gate_linear(config, sizes, sizes.heads, make, name, "gate", "", config.gate_bias,
                        uniform_gate)) {}

}  // namespace regla
