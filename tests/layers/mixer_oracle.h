#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "layers/random_features.h"
#include "tests/layers/mixer_contract.h"

// Every linear attention (docs/math.md, "The other linear attentions") as the sum it stands for, in
// double, from a mixer's parameters by their names:
//
//     o_t[j] = sum_{s<=t} sum_i q_t[i] A_st[i] B_st[j] k_s[i] u_s[j],  A_st = prod_{r=s+1..t} a_r
//
// and DeltaNet, whose tokens erase, as
//
//     o_t = sum_{s<=t} (q_t^T M_t ... M_{s+1} k_s) g_s v_s,  M_r = I - g_r k_r k_r^T
//
// It shares no code with the mixers, except for the drawing of random directions.
namespace regla::test {

class MixerOracle {
 public:
  using Row = std::vector<double>;

  MixerOracle(const MixerConfig& config, const TestMixer& mixer, int64_t draw = 0)
      : c_(config), D_(mixer.n.hidden), H_(mixer.n.heads), V_(D_ / H_) {
    for (const Parameter* parameter : mixer.parameters) {
      weights_[parameter->name.substr(std::string("mixer.").size())] = parameter->value.values();
    }
    qk_ = feature_sizes(config, V_).qk_dim;
    K_ = feature_sizes(config, V_).K;
    const bool favor = c_.feature_map == FeatureMap::Favor;
    const Random random = random_numbers(static_cast<uint64_t>(config.feature_seed),
                                         "mixer.random." + std::to_string(draw));
    random_ = random_directions(random, H_, favor ? K_ : K_ / 2, qk_, favor).values();
  }

  /// x [B, T, D] -> y [B, T, D], flat.
  Row operator()(const Tensor& x) const {
    const Row all = x.values();
    const int64_t T = x.dim(1);
    Row y;
    for (int64_t b = 0; b < x.dim(0); ++b) {
      std::vector<Row> tokens;
      for (int64_t t = 0; t < T; ++t) {
        const auto begin = all.begin() + (b * T + t) * D_;
        tokens.emplace_back(begin, begin + D_);
      }
      for (const Row& out : sequence(tokens)) y.insert(y.end(), out.begin(), out.end());
    }
    return y;
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
  static double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

  Row project(const Row& x, const std::string& name) const {
    const Row &W = weights_.at(name + ".weight"), &bias = weights_.at(name + ".bias");
    Row y = bias;
    for (size_t n = 0; n < y.size(); ++n) {
      for (size_t i = 0; i < x.size(); ++i) y[n] += W[n * x.size() + i] * x[i];
    }
    return y;
  }

  static Row head(const Row& x, int64_t h, int64_t size) {
    return {x.begin() + h * size, x.begin() + (h + 1) * size};
  }

  Row turned(Row z, int64_t position) const {
    const auto rotary =
        static_cast<int64_t>(c_.rope == Rope::Full   ? qk_
                             : c_.rope == Rope::None ? 0
                                                     : std::floor(qk_ * c_.rotary_pct));
    for (int64_t i = 0; i < rotary / 2; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(c_.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
      const double a = z[at(i)], b = z[at(i + rotary / 2)];
      z[at(i)] = a * std::cos(angle) - b * std::sin(angle);
      z[at(i + rotary / 2)] = a * std::sin(angle) + b * std::cos(angle);
    }
    return z;
  }

  static Row times(const Row& W, int64_t h, int64_t rows, const Row& x) {
    Row y(at(rows));
    for (size_t f = 0; f < y.size(); ++f) {
      for (size_t n = 0; n < x.size(); ++n) {
        y[f] += W[(at(h * rows) + f) * x.size() + n] * x[n];
      }
    }
    return y;
  }

  Row learned(const Row& x, int64_t h, int64_t rows, bool key) const {
    const std::string name =
        c_.tie_feature_map ? "feature" : (key ? "feature_key" : "feature_query");
    Row y = times(weights_.at(name + ".weight"), h, rows, x);
    const auto bias = weights_.find(name + ".bias");
    for (size_t f = 0; f < y.size() && bias != weights_.end(); ++f) {
      y[f] += bias->second[at(h * rows) + f];
    }
    return y;
  }

  static Row softmax(const Row& z) {
    Row y = z;
    double sum = 0;
    for (double& v : y) sum += v = std::exp(v);
    for (double& v : y) v /= sum;
    return y;
  }

  static Row scaled(Row z, double factor) {
    for (double& v : z) v *= factor;
    return z;
  }

  static Row joined(Row a, const Row& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  static double square(const Row& x) {
    double sum = 0;
    for (double v : x) sum += v * v;
    return sum;
  }

  /// The exponent of the maps that are stabilised by a maximum; elsewhere the features.
  Row mapped(const Row& x, int64_t h, bool key) const {
    Row y = x;
    switch (c_.feature_map) {
      case FeatureMap::SafeExp:
      case FeatureMap::Identity:
        return y;
      case FeatureMap::Favor: {
        const Row small = scaled(x, std::pow(static_cast<double>(qk_), -0.25));
        y = times(random_, h, K_, small);
        for (double& v : y) v -= square(small) / 2;
        return y;
      }
      case FeatureMap::Lse:
        return softmax(x);
      case FeatureMap::Relu:
        for (double& v : y) v = std::max(v, 0.0);
        return y;
      case FeatureMap::ReluLearned:
        y = learned(x, h, K_, key);
        for (double& v : y) v = std::max(v, 0.0);
        return y;
      case FeatureMap::Elu1:
        for (double& v : y) v = v > 0 ? v + 1 : std::exp(v);
        return y;
      case FeatureMap::Hedgehog: {
        const Row z = learned(x, h, K_ / 2, key);
        if (c_.hedgehog_form == HedgehogForm::Separate) {
          return joined(softmax(z), softmax(scaled(z, -1)));
        }
        return softmax(joined(scaled(z, 2), scaled(z, -2)));
      }
      case FeatureMap::CosSin: {
        const Row z = times(random_, h, K_ / 2, scaled(x, 1 / std::sqrt(square(x))));
        Row sine = z, cosine = z;
        for (double& v : sine) v = std::sin(v);
        for (double& v : cosine) v = std::cos(v);
        return joined(sine, cosine);
      }
      case FeatureMap::Dpfp: {
        const Row both = joined(positive(x), positive(scaled(x, -1)));
        y.clear();
        double sum = 1e-5;
        for (int64_t i = 1; i <= c_.dpfp_nu; ++i) {
          for (int64_t m = 0; m < 2 * qk_; ++m) {
            y.push_back(both[at(m)] * both[at((m + 2 * qk_ - i) % (2 * qk_))]);
            sum += y.back();
          }
        }
        return scaled(y, 1 / sum);
      }
    }
    return {};
  }

  static Row positive(Row x) {
    for (double& v : x) v = std::max(v, 0.0);
    return x;
  }

  static double largest(const Row& z) { return *std::max_element(z.begin(), z.end()); }

  bool exponential() const {
    return c_.feature_map == FeatureMap::SafeExp || c_.feature_map == FeatureMap::Favor;
  }

  double score_factor() const {
    const auto K = static_cast<double>(K_);
    double factor = c_.feature_map == FeatureMap::Favor ? 1 / K : 1;
    ScoreScale kind = c_.score_scale;
    if (kind == ScoreScale::Auto) {
      kind = ScoreScale::SqrtD;
      if (c_.feature_map == FeatureMap::SafeExp) kind = ScoreScale::Variance;
      for (FeatureMap own :
           {FeatureMap::Lse, FeatureMap::Hedgehog, FeatureMap::Dpfp, FeatureMap::Favor}) {
        if (c_.feature_map == own) kind = ScoreScale::None;
      }
      if (c_.sum_norm) kind = ScoreScale::None;
    }
    const double e = std::exp(1.0);
    if (kind == ScoreScale::Variance) factor /= e * std::sqrt(K * (e * e - 1));
    if (kind == ScoreScale::SqrtD) factor /= std::sqrt(K);
    return factor;
  }

  /// F of one token, all heads.
  Row gate(const Row& x, const std::string& suffix) const {
    const auto pre = [&](const std::string& which) {
      const std::string name = which + suffix;
      const bool low = c_.gate_projection == GateProjection::LowRank;
      return project(low ? project(x, name + ".down") : x, name);
    };
    Row F = pre("gate");
    const Row z_r = c_.gate == Gate::Refined ? pre("refine") : F;
    for (size_t i = 0; i < F.size(); ++i) {
      const double g = sigmoid(F[i]), r = sigmoid(z_r[i]);
      F[i] = c_.gate == Gate::Refined ? (1 - r) * g * g + r * (1 - (1 - g) * (1 - g)) : g;
      F[i] = std::pow(F[i], 1 / c_.gate_temperature);
    }
    return F;
  }

  /// What one head of one token brings.
  struct Token {
    Row q, k, u;   // k: exponents for the maps with a maximum
    Row a, b;      // decays on both axes
    double g = 0;  // DeltaNet's write strength
  };

  /// Of length 1 where features do not sum to a constant.
  Row delta_key(Row k) const {
    if (exponential()) {
      const double m = largest(k);
      for (double& v : k)
        v = std::exp(v - m) / (c_.feature_map == FeatureMap::Favor ? root_K() : 1);
    }
    for (FeatureMap own : {FeatureMap::Lse, FeatureMap::Hedgehog, FeatureMap::Dpfp}) {
      if (c_.feature_map == own) return k;
    }
    return scaled(k, 1 / std::sqrt(square(k) + 1e-12 * static_cast<double>(K_)));
  }

  double root_K() const { return std::sqrt(static_cast<double>(K_)); }

  Token token(const Row& x, int64_t h, int64_t t) const {
    Token n;
    n.q = mapped(turned(head(project(x, "query"), h, qk_), t), h, false);
    n.k = mapped(turned(head(project(x, "key"), h, qk_), t), h, true);
    if (exponential()) {
      const double m = largest(n.q);
      for (double& v : n.q) v = std::exp(v - m);
    }
    n.q = scaled(n.q, score_factor());
    n.u = head(project(x, "value"), h, V_);
    if (c_.type == MixerType::DeltaNet) {
      // The scores' 1/K of FAVOR+ is half the query's; the key's length is 1 in any case.
      if (c_.feature_map == FeatureMap::Favor) n.q = scaled(n.q, root_K());
      n.k = delta_key(n.k);
      n.g = gate(x, "")[at(h)];
      return n;
    }
    n.u.push_back(1);  // the normaliser
    n.a = Row(at(K_), 1);
    n.b = Row(at(V_ + 1), 1);
    if (c_.gate == Gate::None) return n;
    if (c_.gate_projection == GateProjection::PerHead) {
      const double g = gate(x, "")[at(h)];
      for (double& v : n.a) v = g;
      if (c_.write_gate) n.u = scaled(n.u, 1 - g);
      return n;
    }
    const bool both = c_.gate_axis == GateAxis::Both;
    if (both || c_.gate_axis == GateAxis::Key) {
      n.a = head(gate(x, both ? "_key" : ""), h, K_);
    }
    if (both || c_.gate_axis == GateAxis::Value) {
      n.b = head(gate(x, both ? "_value" : ""), h, V_);
      n.b.push_back(NAN);  // no normaliser has such a decay
      for (int64_t j = 0; j < V_ && c_.write_gate; ++j) n.u[at(j)] *= 1 - n.b[at(j)];
    }
    return n;
  }

  double written_key(const std::vector<Token>& tokens, size_t s, size_t t, size_t i) const {
    const double gate = c_.write_gate && c_.gate_axis == GateAxis::Key &&
                                c_.gate_projection != GateProjection::PerHead
                            ? 1 - tokens[s].a[i]
                            : 1;
    if (!exponential()) return gate * tokens[s].k[i];
    double m = largest(tokens[s].k);  // token
    const size_t end = c_.key_max == KeyMax::Sequence ? tokens.size() : t + 1;
    for (size_t r = 0; r < end && c_.key_max != KeyMax::Token; ++r) {
      m = std::max(m, largest(tokens[r].k));
    }
    return gate * std::exp(tokens[s].k[i] - m);
  }

  /// q_t walks back through the factors M_r.
  Row erased_sum(const std::vector<Token>& tokens, size_t t) const {
    Row o(at(V_)), p = tokens[t].q;
    for (size_t s = t + 1; s-- > 0;) {
      const Token& n = tokens[s];
      double score = 0;
      for (size_t i = 0; i < p.size(); ++i) score += p[i] * n.k[i];
      for (size_t j = 0; j < o.size(); ++j) o[j] += score * n.g * n.u[j];
      for (size_t i = 0; i < p.size(); ++i) p[i] -= score * n.g * n.k[i];
    }
    return o;
  }

  Row decayed_sum(const std::vector<Token>& tokens, size_t t) const {
    Row o(at(V_ + 1));
    for (size_t s = 0; s <= t; ++s) {
      for (size_t j = 0; j < o.size(); ++j) {
        for (size_t i = 0; i < at(K_); ++i) {
          double decay = 1;
          for (size_t r = s + 1; r <= t; ++r) decay *= tokens[r].a[i] * tokens[r].b[j];
          o[j] += tokens[t].q[i] * decay * written_key(tokens, s, t, i) * tokens[s].u[j];
        }
      }
    }
    double sum = o.back();
    o.pop_back();
    if (!c_.sum_norm) return o;
    const bool negative =
        c_.feature_map == FeatureMap::CosSin || c_.feature_map == FeatureMap::Identity;
    sum = negative ? std::copysign(std::max(std::abs(sum), 1.0), sum) : std::max(sum, 1e-6);
    return scaled(o, 1 / sum);
  }

  /// o_t of one head, normalised.
  Row output(const std::vector<Token>& tokens, size_t t, int64_t h) const {
    Row o = c_.type == MixerType::DeltaNet ? erased_sum(tokens, t) : decayed_sum(tokens, t);
    if (c_.norm == MixerNorm::None) return o;
    double mean = 0;
    for (double v : o) mean += v / static_cast<double>(V_);
    if (c_.norm == MixerNorm::Rms) mean = 0;
    double variance = 0;
    for (double v : o) variance += (v - mean) * (v - mean) / static_cast<double>(V_);
    const Row& gain = weights_.at("norm.weight");
    for (int64_t j = 0; j < V_; ++j) {
      o[at(j)] = (o[at(j)] - mean) / std::sqrt(variance + c_.norm_epsilon) * gain[at(h * V_ + j)];
    }
    return o;
  }

  std::vector<Row> sequence(const std::vector<Row>& xs) const {
    std::vector<Row> ys(xs.size());
    for (int64_t h = 0; h < H_; ++h) {
      std::vector<Token> tokens;
      for (size_t t = 0; t < xs.size(); ++t) {
        tokens.push_back(token(xs[t], h, static_cast<int64_t>(t)));
      }
      for (size_t t = 0; t < xs.size(); ++t) ys[t] = joined(ys[t], output(tokens, t, h));
    }
    for (size_t t = 0; t < xs.size(); ++t) {
      if (c_.output_gate == OutputGate::Swish) {
        const Row z = project(xs[t], "output_gate");
        for (size_t i = 0; i < z.size(); ++i) ys[t][i] *= z[i] * sigmoid(z[i]);
      }
      ys[t] = project(ys[t], "output");
    }
    return ys;
  }

  MixerConfig c_;
  int64_t D_, H_, V_, qk_ = 0, K_ = 0;
  Row random_;
  std::map<std::string, Row> weights_;
};

}  // namespace regla::test
