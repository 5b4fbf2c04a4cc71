#pragma once

#include <string>

#include "layers/linear.h"
#include "layers/mixer.h"

namespace regla::test {

/// 2 of "A new mixer" in CONTRIBUTING.md: the algorithm from top to bottom. An exponential moving
/// average of the values with a learned decay per head:
///
///     v = W_v x,  a = sigma(z),  m <- a m + (1 - a) v,  y = W_o m
class MovingAverageMixer : public Mixer {
 public:
  MovingAverageMixer(const MixerSizes& sizes, const ParameterFactory& make,
                     const std::string& name);

  Var chunked(const Var& x, const Segment& segment, MixerState* state) override;
  Tensor step(const Token& token, const Tensor& positions, MixerState& state) override;
  MixerState initial_state(int64_t batch) const override;
  void parameters(ParameterList& list) override;
  double flops_per_token(int64_t length) const override;
  int64_t state_bytes(int64_t length, DType dtype) const override;

 private:
  int64_t heads_, V_;
  DType sums_;  // of the state
  Device device_;
  Linear value_;
  Parameter decay_;  // [H]: z
  Linear output_;
};

}  // namespace regla::test
