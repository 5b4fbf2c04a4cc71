#pragma once

#include <optional>
#include <string>

#include "layers/feature_maps.h"
#include "layers/gates.h"
#include "layers/mixer.h"

namespace regla {

/// Gated linear attention with every choice of the paper as a field; the defaults are ReGLA:
///
///     q = phi(rope(W_q x)), k = phi(rope(W_k x)), v = W_v x     safe exp      Eq. 11-12
///     F = refined gate of x                                                   Eq. 16-18
///     S <- F * S + k v^T,  o = q S                                            Eq. 15
///     y = W_o norm(o)                                           stable norm   section 3.2
class LinearAttentionMixer : public Mixer {
 public:
  LinearAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                       const ParameterFactory& make, const std::string& name);

  Var chunked(const Var& x, const Segment& segment, MixerState* state) override;
  Tensor step(const Tensor& x, MixerState& state) override;
  MixerState initial_state(int64_t batch) const override;
  void parameters(ParameterList& list) override;
  double flops_per_token(int64_t length) const override;
  int64_t state_bytes(int64_t length, DType dtype) const override;

 private:
  /// What the recurrence reads.
  struct Inputs {
    Var q, k, u;
    LogDecays decays;
    Var m;  // the keys' maximum after the segment
  };
  Inputs prepare(const Var& x, const Tensor& reset, MixerState* state);
  Var finish(const Var& o);

  MixerConfig config_;
  int64_t heads_, K_, V_;
  DType dtype_;
  Linear query_, key_, value_;
  ForgetGate gate_;
  std::optional<Parameter> norm_;  // [H, V]
  Linear output_;
};

}  // namespace regla
