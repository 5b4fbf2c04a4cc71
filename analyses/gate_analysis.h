#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// A gate and its derivatives by its pre-activations, elementwise, in double and on the CPU.
struct GateGradient {
  Tensor F;      ///< refined gate (Eq. 16), or sigma(z_g); to the power 1/temperature
  Tensor d_z_g;  ///< dF/dz_g
  Tensor d_z_r;  ///< dF/dz_r; undefined for the plain sigmoid
};

/// Runs the op of the gate forward and backward (Figure 3), on any device. `z_r` undefined: the
/// plain sigmoid.
GateGradient gate_gradient(const Tensor& z_g, const Tensor& z_r, double temperature = 1);

/// What gates F in [0, 1] did, as sums over tokens and components.
struct GateStatistics {
  static constexpr int64_t kBins = 50;   ///< of [0, 1], equally wide
  static constexpr double kLow = 0.05;   ///< a gate below is saturated,
  static constexpr double kHigh = 0.95;  ///< and so is one above

  std::array<int64_t, kBins> bins = {};  ///< gates per bin; the last one includes 1
  int64_t count = 0, low = 0, high = 0;  ///< gates in all, below kLow, above kHigh
  double sum = 0, sum_squares = 0;       ///< of F
  double gradient = 0;                   ///< of |dF/dz_g|
  double sigmoid_gradient = 0;           ///< of g (1 - g), a plain gate's with the same z_g
  double sigmoid_gradient_at_value = 0;  ///< of F (1 - F), a plain gate's of the same value

  void add(const GateStatistics& other);
  /// The mean over all gates of what one of the members is the sum or the number of.
  double mean(double total) const { return total / static_cast<double>(count); }
  /// Standard deviation of F.
  double deviation() const;
};

/// The gates of one layer on a text.
struct LayerGates {
  int64_t layer = 0;
  GateStatistics gates = {};  ///< `count` 0: the mixer has none
  /// Mean over tokens and components of log F, added up over the axes of the state: the rate at
  /// which an element of the state fades.
  double mean_log_decay = 0;

  bool gated() const { return gates.count > 0; }
};

/// Runs the decoder over ids [B, T] on the CPU without a state and looks at its gates, layer by
/// layer. reset [B, T] or undefined, as in Segment, on the CPU too; `rows` sequences are processed
/// at a time. Error: a gate that is not a number.
std::vector<LayerGates> observe_gates(Decoder& decoder, const Tensor& ids, const Tensor& reset = {},
                                      int64_t rows = 8);

/// The gates of all layers as those of one, numbered -1: statistics added up, the mean log decay
/// averaged over the gated layers.
LayerGates all_layers(const std::vector<LayerGates>& layers);

/// -1 / mean log decay: after so many tokens 1/e is left of what was written, if gates stay at
/// their (geometric) mean. Infinite where nothing decays; none without gates.
std::optional<double> memory_length(const LayerGates& layer);

}  // namespace regla
