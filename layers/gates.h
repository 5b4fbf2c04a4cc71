#pragma once

#include <optional>
#include <string>

#include "layers/basic.h"
#include "layers/mixer.h"

namespace regla {

/// One gate's pre-activation z from the token: D -> H*N, D -> H, or D -> rank -> H*N.
struct GateLinear {
  std::optional<Linear> down;  // only with gate_projection = low_rank
  Linear up;

  GateLinear(const MixerConfig& config, const ParameterFactory& make, const std::string& name,
             int64_t hidden, int64_t outputs, double deviation);
  Var operator()(const Var& x) { return up(down ? (*down)(x) : x); }
  void parameters(ParameterList& list);
};

/// The forget gate of a linear attention, as log-decays. Refined (Eq. 16-18):
///     g = sigma(W_g x + b_g),  r = sigma(W_r x + b_r),  F = (1-r) g^2 + r (1 - (1-g)^2)
class ForgetGate {
 public:
  /// `axis_size`: N, the components of a head on the gated axis.
  ForgetGate(const MixerConfig& config, const MixerSizes& sizes, int64_t axis_size,
             const ParameterFactory& make, const std::string& name);

  /// x [B, T, D] -> the log-decays [B, T, H, N] on the configured axis, or [B, T, H] per head.
  LogDecays operator()(const Var& x);
  void parameters(ParameterList& list);

 private:
  MixerConfig config_;
  int64_t heads_, axis_size_;
  std::optional<GateLinear> forget_, refine_;
};

}  // namespace regla
