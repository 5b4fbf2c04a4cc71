#pragma once

#include <string>

#include "layers/heads.h"

namespace regla {

/// Softmax attention (Eq. 1) with rotary positions and a key-value cache:
///
///     o_t = sum_s softmax_s(q_t k_s / sqrt(K)) v_s,   s <= t, s > t - window
class SoftmaxAttentionMixer : public Mixer {
 public:
  SoftmaxAttentionMixer(const MixerConfig& config, const MixerSizes& sizes,
                        const ParameterFactory& make, const std::string& name);

  Var chunked(const Var& x, const Segment& segment, MixerState* state) override;
  Tensor step(const Token& token, const Tensor& positions, MixerState& state) override;
  MixerState initial_state(int64_t batch) const override;
  MixerState initial_carried_state(int64_t batch) const override;
  void reserve(MixerState& state, int64_t batch, int64_t tokens) const override;
  int64_t steps_ahead(const MixerState& state) const override;
  void parameters(ParameterList& list) override;
  double flops_per_token(int64_t length) const override;
  int64_t state_bytes(int64_t length, DType dtype) const override;

 private:
  Var finish(const Var& o);
  /// Cache entries of `length` that a later token can see.
  int64_t visible(int64_t length) const;
  /// Drops cache entries that no later token can see.
  void trim(MixerState& state) const;
  /// Room for `room` entries, for no more than a window needs, in the place where they are if they
  /// fit. What no later token can see goes.
  void make_room(MixerState& state, int64_t batch, int64_t room) const;

  MixerConfig config_;
  int64_t heads_, K_, V_;
  DType dtype_;
  Device device_;
  HeadProjections project_;
  Linear output_;
};

}  // namespace regla
