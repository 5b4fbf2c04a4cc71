#pragma once

#include <optional>
#include <string>

#include "layers/feature_maps.h"
#include "layers/gates.h"
#include "layers/heads.h"
#include "layers/mixer.h"

namespace regla {

/// DeltaNet (Schlag et al. 2021): what the state holds under a key is replaced, not added to.
///
///     q = phi(rope(W_q x)), k = phi(rope(W_k x)), v = W_v x      DPFP, features sum to 1
///     g = sigma(w x + b), one per head                           write strength
///     S <- S - g k (k^T S) + g k v^T,  o = S^T q                 Eq. 8
///     y = W_o o                                                  optionally normalised and gated
///
/// Along a key the state is multiplied by 1 - g |k|^2, which must not pass below -1. Maps whose
/// features sum to a constant see to that by themselves; keys of the others are scaled to length 1.
class DeltaNetMixer : public Mixer {
 public:
  DeltaNetMixer(const MixerConfig& config, const MixerSizes& sizes, const ParameterFactory& make,
                const std::string& name);

  Var chunked(const Var& x, const Segment& segment, MixerState* state) override;
  Tensor step(const Token& token, const Tensor& positions, MixerState& state) override;
  MixerState initial_state(int64_t batch) const override;
  void parameters(ParameterList& list) override;
  void begin_step(int64_t updates_done) override { phi_.begin_step(updates_done); }
  double flops_per_token(int64_t length) const override;
  int64_t state_bytes(int64_t length, DType dtype) const override;

 private:
  /// What the recurrence reads.
  struct Inputs {
    Var q, k, v, g;
  };
  Inputs prepare(const Var& x, const Segment& segment);

  int64_t heads_, K_, V_, chunk_;
  DType sums_;  // of states
  Device device_;
  HeadProjections project_;
  Phi phi_;
  std::optional<UnitLength> unit_;  // of keys
  WriteStrength strength_;
  HeadOutput output_;
};

}  // namespace regla
