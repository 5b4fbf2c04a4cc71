#pragma once

#include <string>

#include "autograd/ops/cell.h"
#include "layers/linear.h"
#include "layers/mixer.h"

namespace regla::test {

/// 3 of "A new mixer" in CONTRIBUTING.md: the algorithm from top to bottom.
///
///     q, k, v = W x per head,  a = sigma(w x + b),  o = smooth maximum(q, k, v, a),  y = W_o o
class SmoothMaximumMixer : public Mixer {
 public:
  SmoothMaximumMixer(const MixerSizes& sizes, const ParameterFactory& make,
                     const std::string& name);

  Var chunked(const Var& x, const Segment& segment, MixerState* state) override;
  Tensor step(const Token& token, const Tensor& positions, MixerState& state) override;
  MixerState initial_state(int64_t batch) const override;
  void parameters(ParameterList& list) override;
  double flops_per_token(int64_t length) const override;
  int64_t state_bytes(int64_t length, DType dtype) const override;

 private:
  CellInputs prepare(const Var& x);

  int64_t heads_, size_;  // K = V
  DType sums_;            // of the state
  Device device_;
  Linear query_, key_, value_, gate_, output_;
};

}  // namespace regla::test
