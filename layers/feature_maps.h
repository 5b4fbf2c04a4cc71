#pragma once

#include <optional>
#include <string>

#include "layers/mixer.h"
#include "layers/parameters.h"

namespace regla {

/// Queries and keys after the feature map phi, and what the map itself does to the state.
struct Features {
  Var q, k;     // [B, T, H, K]; q carries the score scale
  Var log_rho;  // [B, T, H]: decay by the running maximum of the keys, or undefined
  Var m;        // [B, H]: that maximum after the segment, or undefined
};

/// The factor on the scores q k for K features (Theorem 3.1: variance = 1 / (e sqrt(K (e^2 - 1)))).
double score_scale(ScoreScale scale, int64_t K);

/// Whether the map keeps a running maximum in the state.
bool carries_maximum(const MixerConfig& config);

/// W_h x (+ c_h) for every head h. weight [H F, N], bias [H F].
struct HeadLinear {
  Parameter weight;
  std::optional<Parameter> bias;

  HeadLinear(const ParameterFactory& make, const std::string& name, int64_t heads, int64_t in,
             int64_t out, bool with_bias);
  Var operator()(const Var& x, std::optional<DType> type = {}) {
    const DType out = type.value_or(x.value.dtype());
    return head_linear(x, use(weight), bias ? use_in(out, *bias) : Var{}, out);
  }
  void parameters(ParameterList& list);
};

/// x / |x| over the inner axis of [B, T, H, N], and 0 for x = 0.
class UnitLength {
 public:
  UnitLength(const ParameterFactory& make, int64_t heads, int64_t size);
  Var operator()(const Var& x) const;

 private:
  Tensor gain_;  // [H, N] of 1/sqrt(N): RMSNorm makes |x| = sqrt(N)
  DType dtype_;  // of the result
};

/// The feature map phi of queries and keys x, per head, once they were turned:
///
///     safe_exp      exp(x - max)                            ReGLA Eq. 11-12
///     lse           softmax(x)                              ReGLA footnote 1
///     identity      x
///     relu          max(x, 0)
///     relu_learned  relu(W x + c)                           T2R, Kasai et al. 2021
///     elu1          elu(x) + 1                              Katharopoulos et al. 2020
///     favor         exp(W x' - |x'|^2/2 - max) / sqrt(K)    Choromanski et al. 2021
///     hedgehog      [softmax(W x), softmax(-W x)]           Zhang et al. 2024
///     cos_sin       [sin(W x/|x|), cos(W x/|x|)]            Peng et al. 2021
///     dpfp          products of rolls of [relu(x), relu(-x)], divided by their sum
///                                                           Schlag et al. 2021
///
/// Learned matrices start normal with variance 1/qk_dim, so that W x is as large as x.
class Phi {
 public:
  /// Parameters are called `name`.feature_query.* and .feature_key.*, or `name`.feature.* when
  /// tied.
  Phi(const MixerConfig& config, const MixerSizes& sizes, const ParameterFactory& make,
      const std::string& name);

  /// z_q, z_k [B, T, H, qk_dim], before they turn. m0 [B, H]: the maximum of earlier keys, or
  /// undefined; reset [B, T] I32 or undefined.
  Features operator()(const Var& z_q, const Var& z_k, const Rotation& rotation, const Var& m0,
                      const Tensor& reset);

  void parameters(ParameterList& list);
  /// Draws the random matrix of number updates_done / redraw_every. It is a function of
  /// feature_seed, name and that number, not a parameter: no checkpoint holds it.
  void begin_step(int64_t updates_done);
  /// Operations per token of matrices that are no parameters, or are used twice.
  double flops_per_token() const;

 private:
  Features stabilised(const Var& z_q, const Var& z_k, const Rotation& rotation, const Var& m0,
                      const Tensor& reset, double q_scale, double k_scale);
  Features favor(const Var& x_q, const Var& x_k, const Var& m0, const Tensor& reset, double factor);
  Var mapped(const Var& x, std::optional<HeadLinear>& learned);
  void draw(int64_t number);

  MixerConfig config_;
  DType dtype_;  // of features
  Device device_;
  std::string name_;
  int64_t heads_, qk_dim_, K_;
  std::optional<HeadLinear> query_, key_;  // learned; only query_ when tied
  Tensor random_;                          // [H F, qk_dim]
  int64_t drawn_ = -1;                     // number of the draw in random_
  std::optional<UnitLength> unit_;         // of what cos_sin projects
};

}  // namespace regla
