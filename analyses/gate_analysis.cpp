#include "analyses/gate_analysis.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace regla {
namespace {

/// exp(log_x)
Tensor exponential(const Tensor& log_x) {
  std::vector<double> values = log_x.values();
  for (double& value : values) value = std::exp(value);
  return Tensor::of(log_x.shape(), values);
}

/// dF from d log F.
Tensor times(const Tensor& d_log_F, const Tensor& F) {
  std::vector<double> values = d_log_F.values();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= F.data<double>()[i];
  return Tensor::of(F.shape(), values);
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

/// Gathers the gates of a decoder from what an observer is shown: z_g, z_r if there is one, log F.
class GateCollector {
 public:
  explicit GateCollector(const ModelConfig& config) : config_(config) {
    for (int64_t layer = 0; layer < config.layers; ++layer) layers_.push_back({.layer = layer});
  }

  void operator()(int64_t layer, std::string_view name, const Tensor& value) {
    if (name.starts_with("gate")) {
      z_g_ = value;
      z_r_ = {};
    } else if (name.starts_with("refine")) {
      z_r_ = value;
    } else if (name.starts_with("log_decay")) {
      add(layers_[static_cast<size_t>(layer)], value);
    }
  }

  /// The result, once `rows` sequences were seen.
  std::vector<LayerGates> finish(int64_t rows) {
    for (LayerGates& layer : layers_) layer.mean_log_decay /= static_cast<double>(rows);
    return std::move(layers_);
  }

 private:
  /// Adds one gate, log F [B, T, outputs]. Sums of mean_log_decay are weighted by rows for now.
  void add(LayerGates& layer, const Tensor& log_decay) {
    const double temperature = config_.mixer_of(layer.layer).gate_temperature;
    const Tensor d_z_g = gate_gradient(z_g_, z_r_, temperature).d_z_g;
    const std::vector<double> log_F = log_decay.values(), z_g = z_g_.values();
    double sum_log = 0;
    for (size_t i = 0; i < log_F.size(); ++i) {
      check(!std::isnan(log_F[i]), "[analyse] a gate of layer ", layer.layer, " is not a number");
      count(layer.gates, std::exp(log_F[i]), sigmoid(z_g[i]), d_z_g.data<double>()[i]);
      sum_log += log_F[i];
    }
    const double weight = static_cast<double>(log_decay.dim(0));
    layer.mean_log_decay += weight * sum_log / static_cast<double>(log_F.size());
  }

  static void count(GateStatistics& s, double F, double g, double d_z_g) {
    const auto bin = static_cast<int64_t>(F * GateStatistics::kBins);
    ++s.bins[static_cast<size_t>(std::min(bin, GateStatistics::kBins - 1))];
    ++s.count;
    s.low += F < GateStatistics::kLow;
    s.high += F > GateStatistics::kHigh;
    s.sum += F;
    s.sum_squares += F * F;
    s.gradient += std::abs(d_z_g);
    s.sigmoid_gradient += g * (1 - g);
    s.sigmoid_gradient_at_value += F * (1 - F);
  }

  const ModelConfig& config_;
  std::vector<LayerGates> layers_;
  Tensor z_g_, z_r_;
};

}  // namespace

GateGradient gate_gradient(const Tensor& z_g, const Tensor& z_r, double temperature) {
  Tape tape;
  const Var g = tape.leaf(z_g), r = z_r ? tape.leaf(z_r) : Var{};
  const Var log_gate = z_r ? refined_gate(g, r) : log_sigmoid(g);
  const Var log_F = scale(log_gate, 1 / temperature);
  tape.backward({log_F}, {Tensor::full(z_g.shape(), 1, z_g.dtype(), z_g.device())});
  const Tensor F = exponential(log_F.value);
  return {F, times(tape.gradient(g), F), z_r ? times(tape.gradient(r), F) : Tensor{}};
}

void GateStatistics::add(const GateStatistics& other) {
  for (size_t i = 0; i < bins.size(); ++i) bins[i] += other.bins[i];
  count += other.count;
  low += other.low;
  high += other.high;
  sum += other.sum;
  sum_squares += other.sum_squares;
  gradient += other.gradient;
  sigmoid_gradient += other.sigmoid_gradient;
  sigmoid_gradient_at_value += other.sigmoid_gradient_at_value;
}

double GateStatistics::deviation() const {
  return std::sqrt(std::max(0.0, mean(sum_squares) - mean(sum) * mean(sum)));
}

std::vector<LayerGates> observe_gates(Decoder& decoder, const Tensor& ids, const Tensor& reset,
                                      int64_t rows) {
  const NoGrad guard;
  GateCollector collector(decoder.config());
  const Observer observer = std::ref(collector);
  for (int64_t begin = 0; begin < ids.dim(0); begin += rows) {
    const int64_t end = std::min(begin + rows, ids.dim(0));
    const Tensor resets = reset ? reset.slice(begin, end).on(decoder.device()) : Tensor{};
    decoder.hidden(ids.slice(begin, end).on(decoder.device()),
                   {.reset = resets, .observer = &observer});
  }
  return collector.finish(ids.dim(0));
}

LayerGates all_layers(const std::vector<LayerGates>& layers) {
  LayerGates all{.layer = -1};
  int64_t gated = 0;
  for (const LayerGates& layer : layers) {
    if (!layer.gated()) continue;
    all.gates.add(layer.gates);
    all.mean_log_decay += layer.mean_log_decay;
    ++gated;
  }
  if (gated > 0) all.mean_log_decay /= static_cast<double>(gated);
  return all;
}

std::optional<double> memory_length(const LayerGates& layer) {
  if (!layer.gated()) return std::nullopt;
  return layer.mean_log_decay < 0 ? -1 / layer.mean_log_decay
                                  : std::numeric_limits<double>::infinity();
}

}  // namespace regla
