#pragma once

#include <optional>
#include <string>

#include "layers/linear.h"
#include "layers/mixer.h"

namespace regla {

/// What every mixer begins with: queries, keys and values per head, and how queries and keys turn.
class HeadProjections {
 public:
  struct Result {
    Var q, k;           // [B, T, H, qk_dim], before they turn
    Var v;              // [B, T, H, V]
    Rotation rotation;  // at the positions of the segment
  };

  /// Parameters are called `name`.query.*, `name`.key.* and `name`.value.*.
  HeadProjections(const MixerConfig& config, const MixerSizes& sizes, int64_t qk_dim,
                  const ParameterFactory& make, const std::string& name);

  /// x [B, T, D] at the positions of the segment.
  Result operator()(const Var& x, const Segment& segment);
  /// The same for a token at positions [B, 1].
  Result step(const Token& token, const Tensor& positions);
  /// Adds the layers of queries, keys and values, and how queries and keys turn.
  void add_layers(StepLayers& layers);
  Rotation rotation(const Tensor& positions) const { return {positions, rotary_, rope_base_}; }
  void parameters(ParameterList& list);

 private:
  int64_t heads_, qk_dim_, V_;
  int64_t rotary_;  // leading elements of a query and key that turn
  double rope_base_;
  DType qk_type_, v_type_;  // of queries and keys S where the feature map says so
  Linear query_, key_, value_;
};

/// What a linear attention ends with: y = W_o (norm(o) * swish(W_r x)), norm and gate optional.
class HeadOutput {
 public:
  /// Parameters are called `name`.norm.weight, `name`.output_gate.* and `name`.output.*.
  HeadOutput(const MixerConfig& config, const MixerSizes& sizes, const ParameterFactory& make,
             const std::string& name);

  /// o [B, T, H, V] of the tokens x [B, T, D] -> [B, T, D]
  Var operator()(const Var& o, const Var& x);
  /// Its parts, for a token: the layer of its gate, if there is one, its norm, and what it ends
  /// with.
  void add_layers(StepLayers& layers);
  HeadNorm norm();
  Tensor step(const Token& y) { return linear_step(y, output_); }
  void parameters(ParameterList& list);

 private:
  bool center_;
  double epsilon_;
  DType type_;                     // of what it reads
  std::optional<Parameter> norm_;  // [H, V]
  std::optional<Linear> gate_;
  Linear output_;
};

}  // namespace regla
