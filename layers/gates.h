#pragma once

#include <optional>
#include <string>

#include "layers/linear.h"
#include "layers/mixer.h"

namespace regla {

/// One gate's pre-activation z from the token: D -> H*N, D -> H, or D -> rank -> H*N.
struct GateLinear {
  std::optional<Linear> down;  // only with gate_projection = low_rank
  Linear up;

  GateLinear(const MixerConfig& config, const ParameterFactory& make, const std::string& name,
             int64_t hidden, int64_t outputs, double deviation);
  Var operator()(const Var& x, std::optional<DType> type = {}) {
    return up(down ? (*down)(x) : x, type);
  }
  void parameters(ParameterList& list);
};

/// The decay along one axis of the state. Sigmoid: g = sigma(W_g x + b_g). Refined (Eq. 16-18):
///     g = sigma(W_g x + b_g),  r = sigma(W_r x + b_r),  F = (1-r) g^2 + r (1 - (1-g)^2)
/// Divided by the temperature as a log (GLA): F^(1/temperature).
class AxisGate {
 public:
  /// Parameters are called `name`.gate<suffix>.* and `name`.refine<suffix>.*.
  AxisGate(const MixerConfig& config, const MixerSizes& sizes, int64_t outputs,
           const ParameterFactory& make, const std::string& name, const std::string& suffix);

  /// x [B, T, D] -> log F [B, T, outputs]
  Var operator()(const Var& x, const Segment& segment);
  /// Adds the layers of z_g and, of a refined gate, z_r, which read the token itself.
  void add_layers(StepLayers& layers);
  void parameters(ParameterList& list);

 private:
  std::string suffix_;
  double temperature_;
  DType dtype_;  // of log F
  GateLinear forget_;
  std::optional<GateLinear> refine_;
};

/// The forget gate of a linear attention, as log-decays: none, one per head, one per component of
/// the key axis or of the value axis, or both, whose product is Fast Decay's outer product (Eq.
/// 10).
class ForgetGate {
 public:
  /// K and V: the components of a head on the key and on the value axis.
  ForgetGate(const MixerConfig& config, const MixerSizes& sizes, int64_t K, int64_t V,
             const ParameterFactory& make, const std::string& name);

  /// x [B, T, D] -> the log-decays [B, T, H, K], [B, T, H, V] or [B, T, H].
  LogDecays operator()(const Var& x, const Segment& segment = {});
  /// Adds the layers of its gates.
  void add_layers(StepLayers& layers);
  void parameters(ParameterList& list);

 private:
  int64_t heads_, K_, V_;
  std::optional<AxisGate> scalar_, key_, value_;
};

/// The write strength of the delta rule, one per head: g = sigma(W x + b).
class WriteStrength {
 public:
  /// Parameters are called `name`.gate.*.
  WriteStrength(const MixerConfig& config, const MixerSizes& sizes, const ParameterFactory& make,
                const std::string& name);

  /// x [B, T, D] -> g [B, T, H]
  Var operator()(const Var& x) { return sigmoid(gate_(x, sum_type(x.value.dtype()))); }
  void parameters(ParameterList& list) { gate_.parameters(list); }

 private:
  GateLinear gate_;
};

}  // namespace regla
