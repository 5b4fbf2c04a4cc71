#include <cmath>
#include <numbers>

#include "layers/feature_maps.h"
#include "tests/layers/mixer_contract.h"
#include "tests/matchers.h"
#include "tests/oracle.h"

// The whole ReGLA mixer against docs/math.md in double, and identities that it must satisfy.
namespace regla::test {
namespace {

constexpr int64_t B = 2, T = 23, D = 12, H = 2;

size_t at(int64_t i) { return static_cast<size_t>(i); }

MixerConfig small_config() {
  MixerConfig config;
  config.rope = Rope::Full;
  config.rope_base = 50;
  config.norm_epsilon = 0;
  config.feature_dim = 8;
  return config;
}

/// ReGLA as the paper prints it, from the parameters of a mixer by their names.
class PaperRegla {
 public:
  PaperRegla(const TestMixer& mixer, const MixerConfig& config) : config_(config) {
    for (const Parameter* parameter : mixer.parameters) {
      weights_[parameter->name.substr(std::string("mixer.").size())] = parameter->value.values();
    }
  }

  Numbers operator()(const Numbers& x) const {
    const int64_t K = config_.feature_dim, V = D / H;
    OracleInputs in = {B, T, H, K, V, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    in.q = project(x, "query", H * K);
    in.k = project(x, "key", H * K);
    in.u = project(x, "value", H * V);
    rotate(in.q);
    rotate(in.k);
    const double e = std::numbers::e;
    const double variance = 1 / (e * std::sqrt(static_cast<double>(K) * (e * e - 1)));
    safe_exp(in.q, true, variance);  // Eq. 11
    safe_exp(in.k, false, 1);        // Eq. 12: one maximum over the whole sequence
    const bool on_keys = config_.gate_axis == GateAxis::Key;
    (on_keys ? in.log_a : in.log_b) = log_gate(x, H * (on_keys ? K : V));
    in.d_o = Numbers(in.u.size());
    in.d_state = Numbers(at(B * H * K * V));
    Numbers o = Oracle(in).result().o;  // Eq. 15
    if (config_.norm != MixerNorm::None) normalise(o);
    return project(o, "output", D);
  }

 private:
  /// y = W x + b, W [out, in].
  Numbers project(const Numbers& x, const std::string& name, int64_t out) const {
    const Numbers &W = weights_.at(name + ".weight"), &bias = weights_.at(name + ".bias");
    Numbers y(at(B * T * out));
    for (int64_t r = 0; r < B * T; ++r) {
      for (int64_t n = 0; n < out; ++n) {
        y[at(r * out + n)] = bias[at(n)];
        for (int64_t i = 0; i < D; ++i) y[at(r * out + n)] += W[at(n * D + i)] * x[at(r * D + i)];
      }
    }
    return y;
  }

  /// The pair (i, i + K/2) of token t turns by t * base^(-2i/K).
  void rotate(Numbers& z) const {
    const int64_t K = config_.feature_dim;
    for (int64_t r = 0; r < B * T * H; ++r) {
      const auto position = static_cast<double>(r / H % T);
      for (int64_t i = 0; i < K / 2; ++i) {
        const double power = -2.0 * static_cast<double>(i) / static_cast<double>(K);
        const double angle = position * std::pow(config_.rope_base, power);
        double &a = z[at(r * K + i)], &b = z[at(r * K + i + K / 2)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
  }

  /// exp(z - max), the maximum of a head over the token or over its whole sequence.
  void safe_exp(Numbers& z, bool per_token, double factor) const {
    const int64_t K = config_.feature_dim;
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t h = 0; h < H; ++h) {
        const auto place = [&](int64_t t, int64_t i) { return at(((b * T + t) * H + h) * K + i); };
        double whole = -INFINITY;
        for (int64_t t = 0; t < T; ++t) {
          for (int64_t i = 0; i < K; ++i) whole = std::max(whole, z[place(t, i)]);
        }
        for (int64_t t = 0; t < T; ++t) {
          double m = per_token ? -INFINITY : whole;
          for (int64_t i = 0; i < K && per_token; ++i) m = std::max(m, z[place(t, i)]);
          for (int64_t i = 0; i < K; ++i) {
            z[place(t, i)] = factor * std::exp(z[place(t, i)] - m);
          }
        }
      }
    }
  }

  /// log of F = (1-r) g^2 + r (1 - (1-g)^2), Eq. 16-18.
  Numbers log_gate(const Numbers& x, int64_t outputs) const {
    Numbers log_f = project(x, "gate", outputs);
    const Numbers z_r = project(x, "refine", outputs);
    for (size_t i = 0; i < log_f.size(); ++i) {
      const double g = 1 / (1 + std::exp(-log_f[i])), r = 1 / (1 + std::exp(-z_r[i]));
      log_f[i] = std::log((1 - r) * g * g + r * (1 - (1 - g) * (1 - g)));
    }
    return log_f;
  }

  /// RMSNorm per head, epsilon 0, gain [H, V].
  void normalise(Numbers& o) const {
    const int64_t V = D / H;
    const Numbers& gain = weights_.at("norm.weight");
    for (int64_t r = 0; r < B * T * H; ++r) {
      double squares = 0;
      for (int64_t j = 0; j < V; ++j) squares += o[at(r * V + j)] * o[at(r * V + j)];
      const double rms = std::sqrt(squares / static_cast<double>(V));
      for (int64_t j = 0; j < V; ++j) o[at(r * V + j)] *= gain[at(r % H * V + j)] / rms;
    }
  }

  MixerConfig config_;
  std::map<std::string, Numbers> weights_;
};

ContractSizes sizes() { return {.B = B, .T = T, .past = 5, .hidden = D, .heads = H}; }

Settings settings(DType dtype = DType::F64) {
  Settings s;
  s.x = normal_tensor({B, T, D}, dtype, 1);
  s.d_y = normal_tensor({B, T, D}, dtype, 2);
  return s;
}

/// Makes another mixer's parameters those of `from`, where the names agree.
void copy_parameters(const TestMixer& from, const TestMixer& to) {
  for (Parameter* target : to.parameters) {
    for (const Parameter* source : from.parameters) {
      if (source->name == target->name) target->value = source->value;
    }
  }
}

}  // namespace

TEST_CASE("the ReGLA mixer is the paper's equations") {
  for (GateAxis axis : {GateAxis::Value, GateAxis::Key}) {
    for (KeyMax key_max : {KeyMax::Running, KeyMax::Sequence}) {
      MixerConfig config = small_config();
      config.gate_axis = axis;
      config.key_max = key_max;
      const TestMixer mixer(config, sizes(), DType::F64);
      const Settings s = settings();
      const Numbers expected = PaperRegla(mixer, config)(s.x.values());
      INFO(name_of(axis) << ", " << name_of(key_max));
      for (int64_t chunk : {0, 1, 7, 16, 23}) {
        const Var y = mixer->chunked(s.x, {{}, chunk}, nullptr);
        CHECK(relative_error(y.value.values(), expected) < 1e-10);
      }
      const TestMixer single(config, sizes(), DType::F32);
      const Var y = single->chunked(settings(DType::F32).x, {}, nullptr);
      CHECK(relative_error(y.value.values(), expected) < 1e-4);
    }
  }
}

TEST_CASE("without the norm the scale of the scores shows") {
  CHECK(score_scale(ScoreScale::Variance, 64) == Approx(0.018193).epsilon(1e-4));
  CHECK(score_scale(ScoreScale::SqrtD, 64) == 0.125);
  CHECK(score_scale(ScoreScale::None, 64) == 1);
  MixerConfig config = small_config();
  config.norm = MixerNorm::None;
  config.key_max = KeyMax::Sequence;
  const TestMixer mixer(config, sizes(), DType::F64);
  const Settings s = settings();
  const Var y = mixer->chunked(s.x, {}, nullptr);
  CHECK(relative_error(y.value.values(), PaperRegla(mixer, config)(s.x.values())) < 1e-10);
}

TEST_CASE("running and sequence maximum agree after the stable norm, in value and gradient") {
  MixerConfig config = small_config();
  const TestMixer running(config, sizes(), DType::F64);
  config.key_max = KeyMax::Sequence;
  const TestMixer sequence(config, sizes(), DType::F64);
  Settings s = settings();
  s.seed_state = false;
  const Named a = run_segments(running, s), b = run_segments(sequence, s);
  CHECK(relative_error(a.at("y"), b.at("y")) < 1e-10);
  CHECK(relative_error(a.at("d x"), b.at("d x")) < 1e-10);
  check_close(a, b, 1e-10);
  config.norm = MixerNorm::None;  // without the norm they are different functions
  const TestMixer bare(config, sizes(), DType::F64);
  config.key_max = KeyMax::Running;
  const TestMixer bare_running(config, sizes(), DType::F64);
  CHECK(relative_error(run_segments(bare, s).at("y"), run_segments(bare_running, s).at("y")) >
        0.01);
}

TEST_CASE("a carried maximum far above all keys changes nothing") {
  constexpr double kHigher = 10;  // so that keys, state and outputs are smaller by exp(10)
  for (const auto& [dtype, tolerance] :
       {std::pair(DType::F64, 1e-8), std::pair(DType::F32, 1e-4)}) {
    const TestMixer mixer(MixerConfig{.feature_dim = 8}, sizes(), dtype);
    const Carried start = mixer.start();
    Carried higher = start.clone();
    higher.state.S = scale(start.state.S, std::exp(-kHigher)).value;
    higher.state.m = add(start.state.m, Tensor::full({B, H}, kHigher, dtype)).value;
    Settings s = settings(dtype);
    s.seed_state = false;
    s.start = &start;
    const Named expected = run_segments(mixer, s);
    s.start = &higher;
    const Named found = run_segments(mixer, s);
    INFO(name_of(dtype));
    CHECK(relative_error(found.at("y"), expected.at("y")) < tolerance);
    CHECK(relative_error(found.at("d x"), expected.at("d x")) < tolerance);
  }
}

TEST_CASE("a refining gate of 1/2 is the vanilla gate") {
  MixerConfig config = small_config();
  const TestMixer refined(config, sizes(), DType::F64);
  for (Parameter* parameter : refined.parameters) {
    if (parameter->name.find("refine") != std::string::npos) parameter->value.fill(0);
  }
  config.gate = Gate::Sigmoid;
  const TestMixer vanilla(config, sizes(), DType::F64);
  copy_parameters(refined, vanilla);
  const Settings s = settings();
  Named a = run_segments(refined, s);
  const Named b = run_segments(vanilla, s);
  check_close(a, b, 1e-10);
}

TEST_CASE("the whole mixer's gradient is exact with the norm off") {
  for (KeyMax key_max : {KeyMax::Running, KeyMax::Sequence, KeyMax::Token}) {
    for (MixerNorm norm : {MixerNorm::None, MixerNorm::Rms}) {
      for (bool carried : {false, true}) {
        MixerConfig config = small_config();
        config.norm_epsilon = 1e-8;
        config.feature_dim = 4;
        config.key_max = key_max;
        config.norm = norm;
        const TestMixer mixer(config, sizes(), DType::F64);
        const Carried start = mixer.start();
        Settings s = settings();
        s.x = tokens(s.x, 0, 9);
        s.d_y = tokens(s.d_y, 0, 9);
        s.reset = Tensor::of({B, 9}, std::vector<int32_t>{0, 0, 0, 1, 0, 0, 0, 0, 0,  //
                                                          0, 0, 0, 0, 0, 0, 1, 0, 0});
        if (carried) s.start = &start;
        const Named result = run_segments(mixer, s);
        Carried moved = start.clone();
        const auto loss = [&] {
          Carried past = carried ? moved.clone() : mixer.initial(B);
          const NoGrad guard;
          double sum = dot(past.chunked(*mixer, s.x, {s.reset, 0}).value, s.d_y);
          const MixerState& state = past.state;
          sum += dot(state.S.value, normal_tensor(state.S.shape(), DType::F64, 31));
          if (!state.m.defined()) return sum;
          return sum + dot(state.m.value, normal_tensor(state.m.shape(), DType::F64, 32));
        };
        INFO(name_of(key_max) << ", " << name_of(norm) << ", carried " << carried);
        const auto check_gradient = [&](Tensor& value, const std::string& name) {
          Numbers numeric, analytic;
          const Numbers all = result.at(name).values();
          for (int64_t i = 0; i < value.numel(); i += 3) {
            numeric.push_back(slope(value, i, loss, 2e-4));
            analytic.push_back(all[at(i)]);
          }
          INFO(name);
          CHECK(relative_error(analytic, numeric) < 1e-7);
        };
        check_gradient(s.x, "d x");
        for (Parameter* parameter : mixer.parameters) {
          check_gradient(parameter->value, "d " + parameter->name);
        }
        if (!carried) continue;
        check_gradient(moved.state.S.value, "d S");
        if (moved.state.m.defined()) check_gradient(moved.state.m.value, "d m");
      }
    }
  }
}

}  // namespace regla::test
