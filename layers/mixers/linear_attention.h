#pragma once

#include <string>

#include "layers/feature_maps.h"
#include "layers/gates.h"
#include "layers/heads.h"
#include "layers/mixer.h"

namespace regla {

/// Gated linear attention with every choice of the paper as a field; the defaults are ReGLA:
///
///     q = phi(rope(W_q x)), k = phi(rope(W_k x)), v = W_v x     safe exp      Eq. 11-12
///     F = refined gate of x                                                   Eq. 16-18
///     S <- F * S + k v^T,  o = q S                                            Eq. 15
///     y = W_o norm(o)                                           stable norm   section 3.2
///
/// and the other rows of Table 3 differ in phi, in the axes of F, in u = (1 - F) v written instead
/// of v (Eq. 6), in a sum norm o / (q c) whose c is one more column of S (Eq. 4-5, 7), and in
/// y = W_o (norm(o) * swish(W_r x)) (GLA).
class LinearAttentionMixer : public Mixer {
 public:
  LinearAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                       const ParameterFactory& make, const std::string& name);

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
    Var q, k, u;
    LogDecays decays;
    Var m;  // the keys' maximum after the segment
  };
  Inputs prepare(const Var& x, const Segment& segment, MixerState* state);
  Var finish(const Var& o, const Var& x);
  /// `step` of the paper's own form, in three passes.
  Tensor paper_step(const Token& token, const Tensor& positions, MixerState& state);
  /// Columns of the state: the values, and with a sum norm the normaliser.
  int64_t columns() const { return V_ + (config_.sum_norm ? 1 : 0); }

  MixerConfig config_;
  int64_t heads_, K_, V_;
  DType sums_;  // of states
  Device device_;
  HeadProjections project_;
  Phi phi_;
  ForgetGate gate_;
  HeadOutput output_;
};

}  // namespace regla
