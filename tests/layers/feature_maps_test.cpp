#include "layers/feature_maps.h"

#include <cmath>

#include "layers/random_features.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr int64_t kHeadDim = 8, kHeads = 3;

MixerSizes sizes() { return {kHeadDim * kHeads, kHeads, 0.3, 0.3}; }

Phi phi_of(const MixerConfig& config, DType dtype = DType::F64) {
  return {config, sizes(), ParameterFactory(5, dtype), "mixer"};
}

Features apply(const MixerConfig& config, const Tensor& z_q, const Tensor& z_k) {
  return phi_of(config, z_q.dtype())(z_q, z_k, {}, {}, {});
}

MixerConfig with_map(FeatureMap map) {
  MixerConfig config = preset(MixerType::LinearElu);
  config.feature_map = map;
  return config;
}

/// sum over the inner axis
std::vector<double> sums(const Tensor& x) {
  const std::vector<double> values = x.values();
  const auto N = static_cast<size_t>(x.dim(-1));
  std::vector<double> result(values.size() / N);
  for (size_t i = 0; i < values.size(); ++i) result[i / N] += values[i];
  return result;
}

std::string refusal(MixerConfig config) {
  return error_of([&] { make_mixer(config, sizes(), {1, DType::F32}, "mixer"); });
}

template <class Edit>
std::string refusal(MixerType type, Edit&& edit) {
  MixerConfig config = preset(type);
  edit(config);
  return refusal(config);
}

}  // namespace

TEST_CASE("features have the size that the configuration says") {
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    MixerConfig config = with_map(static_cast<FeatureMap>(i));
    INFO(name_of(config.feature_map));
    for (int64_t given : {0, 24}) {
      config.feature_dim = given;
      const FeatureSizes n = feature_sizes(config, kHeadDim);
      const Shape before = {2, 5, kHeads, n.qk_dim}, after = {2, 5, kHeads, n.K};
      const Features f =
          apply(config, normal_tensor(before, DType::F64, 1), normal_tensor(before, DType::F64, 2));
      CHECK(f.q.shape() == after);
      CHECK(f.k.shape() == after);
      CHECK((given == 0 || n.K == given));
    }
  }
  CHECK(feature_sizes(with_map(FeatureMap::Dpfp), 64).K == 384);
  CHECK(feature_sizes(with_map(FeatureMap::Hedgehog), 64).qk_dim == 64);
}

TEST_CASE("non-negative features are, and those that sum to one do") {
  const Tensor z = normal_tensor({2, 6, kHeads, kHeadDim}, DType::F64, 3, 2);
  for (size_t i = 0; i < names_of(FeatureMap{}).size(); ++i) {
    const auto map = static_cast<FeatureMap>(i);
    INFO(name_of(map));
    bool negative = false;
    for (double v : apply(with_map(map), z, z).k.value.values()) negative = negative || v < 0;
    CHECK(negative == changes_sign(map));
  }
  for (double sum : sums(apply(with_map(FeatureMap::Lse), z, z).k.value)) {
    CHECK(sum == Approx(1).epsilon(1e-12));
  }
  MixerConfig hedgehog = with_map(FeatureMap::Hedgehog);
  for (double sum : sums(apply(hedgehog, z, z).k.value)) CHECK(sum == Approx(2).epsilon(1e-12));
  hedgehog.hedgehog_form = HedgehogForm::Joint2x;
  for (double sum : sums(apply(hedgehog, z, z).k.value)) CHECK(sum == Approx(1).epsilon(1e-12));
  for (double sum : sums(apply(with_map(FeatureMap::Dpfp), z, z).k.value)) {
    CHECK(sum == Approx(1).epsilon(1e-3));
  }
}

TEST_CASE("elu + 1 does not cancel") {
  const Tensor x = Tensor::of({3}, std::vector<float>{-60, -20, 2});
  const std::vector<double> y = elu_plus_one(x).value.values();
  CHECK(y[0] == Approx(std::exp(-60.0)).epsilon(1e-5));
  CHECK(y[1] == Approx(std::exp(-20.0)).epsilon(1e-5));
  CHECK(y[2] == 3);
}

TEST_CASE("hedgehog holds for large values") {
  const Tensor z = Tensor::of({1, 3}, std::vector<float>{500, -400, 3});
  for (bool joint : {false, true}) CHECK(all_finite(hedgehog(z, joint).value));
}

TEST_CASE("dpfp rolls as it says") {
  // x' = [1, 0, 0, 2]; x' * roll(x', 1) = [1*2, 0, 0, 0], by 3: [0, 0, 0, 2*1]
  const Tensor x = Tensor::of({1, 2}, std::vector<double>{1, -2});
  const std::vector<double> y = dpfp(x, 3).value.values();
  std::vector<double> expected(12, 0.0);
  expected[0] = expected[11] = 2 / (4 + 1e-5);
  CHECK(relative_error(y, expected) < 1e-15);
}

TEST_CASE("FAVOR+ and random Fourier features estimate their kernels") {
  MixerConfig config = preset(MixerType::Performer);
  config.feature_dim = 4096;
  config.key_max = KeyMax::Sequence;  // one factor for all keys
  const Shape shape = {1, 6, kHeads, kHeadDim};
  const Tensor q = normal_tensor(shape, DType::F64, 7, 0.4);
  const Tensor k = normal_tensor(shape, DType::F64, 8, 0.4);
  const std::vector<double> zq = q.values(), zk = k.values();
  const auto dot_of = [&](const std::vector<double>& a, const std::vector<double>& b, size_t t,
                          size_t s, size_t h, size_t N) {
    double sum = 0;
    for (size_t i = 0; i < N; ++i) {
      sum += a[(t * kHeads + h) * N + i] * b[(s * kHeads + h) * N + i];
    }
    return sum;
  };
  // Scores of one query, each divided by their sum: softmax attention's weights.
  const Features f = apply(config, q, k);
  const std::vector<double> fq = f.q.value.values(), fk = f.k.value.values();
  for (size_t t = 0; t < 6; ++t) {
    double sum = 0, exact_sum = 0;
    for (size_t s = 0; s < 6; ++s) {
      sum += dot_of(fq, fk, t, s, 1, 4096);
      exact_sum += std::exp(dot_of(zq, zk, t, s, 1, kHeadDim) / std::sqrt(double{kHeadDim}));
    }
    for (size_t s = 0; s < 6; ++s) {
      const double exact =
          std::exp(dot_of(zq, zk, t, s, 1, kHeadDim) / std::sqrt(double{kHeadDim})) / exact_sum;
      CHECK(dot_of(fq, fk, t, s, 1, 4096) / sum == Approx(exact).margin(0.02));
    }
  }
  // cos(w (x - y)) of unit vectors has the mean exp(-|x - y|^2 / 2).
  config = preset(MixerType::Rfa);
  config.feature_dim = 8192;
  const Features g = apply(config, q, k);
  const std::vector<double> gq = g.q.value.values(), gk = g.k.value.values();
  for (size_t t = 0; t < 6; ++t) {
    const double length =
        std::sqrt(dot_of(zq, zq, t, t, 2, kHeadDim) * dot_of(zk, zk, t, t, 2, kHeadDim));
    const double exact = std::exp(dot_of(zq, zk, t, t, 2, kHeadDim) / length - 1);
    CHECK(dot_of(gq, gk, t, t, 2, 8192) / 4096 == Approx(exact).margin(0.05));
  }
}

TEST_CASE("random directions are normal, and orthogonal within groups when asked") {
  const int64_t N = 6, F = 15;
  const Tensor w = random_directions(Random(1, 2), 2, F, N, true);
  const std::vector<double> rows = w.values();
  const auto at = [&](int64_t f, int64_t n) { return rows[static_cast<size_t>(f * N + n)]; };
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t a = h * F; a < (h + 1) * F; ++a) {
      for (int64_t b = h * F; b < a; ++b) {
        double product = 0;
        for (int64_t n = 0; n < N; ++n) product += at(a, n) * at(b, n);
        if ((a - h * F) / N == (b - h * F) / N) CHECK(std::abs(product) < 1e-12);
      }
    }
  }
  for (bool orthogonal : {false, true}) {
    const std::vector<double> many =
        random_directions(Random(1, 3), 4, 1000, 16, orthogonal).values();
    double mean = 0, squares = 0, fourth = 0;
    for (double v : many) {
      mean += v;
      squares += v * v;
      fourth += v * v * v * v;
    }
    const auto count = static_cast<double>(many.size());
    CHECK(mean / count == Approx(0).margin(0.02));
    CHECK(squares / count == Approx(1).margin(0.03));
    CHECK(fourth / count == Approx(3).margin(0.15));
  }
}

TEST_CASE("random features are drawn again when their time comes, and only then") {
  MixerConfig config = preset(MixerType::Performer);
  config.redraw_every = 10;
  const Tensor z = normal_tensor({1, 4, kHeads, kHeadDim}, DType::F32, 1);
  Phi phi = phi_of(config, DType::F32);
  const auto keys_after = [&](int64_t updates) {
    phi.begin_step(updates);
    return phi(z, z, {}, {}, {}).k.value;
  };
  const Tensor first = keys_after(0);
  CHECK(same_bits(keys_after(9), first));
  CHECK(!same_bits(keys_after(10), first));
  CHECK(same_bits(keys_after(3), first));  // a function of the number, not of the history
  config.redraw_every = 0;
  Phi fixed = phi_of(config, DType::F32);
  fixed.begin_step(1000);
  CHECK(same_bits(fixed(z, z, {}, {}, {}).k.value, first));
}

TEST_CASE("feature maps without weights add no parameter names, others add theirs") {
  const auto names = [](const MixerConfig& config) {
    ParameterList parameters;
    Phi phi = phi_of(config);
    phi.parameters(parameters);
    std::vector<std::string> list;
    for (const Parameter* parameter : parameters) list.push_back(parameter->name);
    return list;
  };
  using Names = std::vector<std::string>;
  CHECK(names(preset(MixerType::Regla)).empty());
  CHECK(names(preset(MixerType::Performer)).empty());
  CHECK(names(preset(MixerType::LinearRelu)) ==
        Names{"mixer.feature.weight", "mixer.feature.bias"});
  CHECK(names(preset(MixerType::Hedgehog)) ==
        Names{"mixer.feature_query.weight", "mixer.feature_key.weight"});
}

TEST_CASE("every preset makes a mixer, and combinations that mean nothing say why") {
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    CHECK(refusal(preset(static_cast<MixerType>(i))) == "no error");
  }
  using C = MixerConfig;
  CHECK_THAT(refusal(MixerType::Regla, [](C& c) { c.sum_norm = true; }),
             Contains("mixer.sum_norm without a gate on the value axis"));
  CHECK_THAT(refusal(MixerType::FastDecay, [](C& c) { c.sum_norm = true; }),
             Contains("no common normaliser"));
  CHECK(refusal(MixerType::Gla, [](C& c) { c.sum_norm = true; }) == "no error");
  CHECK(refusal(MixerType::ScalarGate, [](C& c) { c.sum_norm = true; }) == "no error");
  CHECK_THAT(refusal(MixerType::LinearElu, [](C& c) { c.key_max = KeyMax::Token; }),
             Contains("elu1 subtracts no maximum"));
  CHECK_THAT(refusal(MixerType::LinearElu, [](C& c) { c.write_gate = true; }),
             Contains("expected a gate with mixer.write_gate"));
  CHECK_THAT(refusal(MixerType::FastDecay, [](C& c) { c.write_gate = true; }),
             Contains("gate_axis key or value with write_gate"));
  CHECK_THAT(
      refusal(MixerType::FastDecay, [](C& c) { c.gate_projection = GateProjection::PerHead; }),
      Contains("one decay per head"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.sum_norm = true; }),
             Contains("no normaliser"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.gate = Gate::Refined; }),
             Contains("strength"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.gate = Gate::None; }),
             Contains("gate = sigmoid"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.gate_projection = GateProjection::Full; }),
             Contains("per_head"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.gate_axis = GateAxis::Key; }),
             Contains("no axis"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.write_gate = true; }),
             Contains("already the strength"));
  CHECK_THAT(refusal(MixerType::DeltaNet, [](C& c) { c.gate_temperature = 16; }),
             Contains("no decay"));
  for (FeatureMap map : {FeatureMap::SafeExp, FeatureMap::Favor}) {
    for (KeyMax key_max : {KeyMax::Running, KeyMax::Sequence, KeyMax::Token}) {
      const std::string message = refusal(MixerType::DeltaNet, [=](C& c) {
        c.feature_map = map;
        c.key_max = key_max;
      });
      if (key_max == KeyMax::Token) {
        CHECK(message == "no error");
      } else {
        CHECK_THAT(message, Contains("key_max = token"));
      }
    }
  }
  CHECK_THAT(refusal(MixerType::Gla, [](C& c) { c.gate_temperature = 0; }),
             Contains("gate_temperature above 0"));
  CHECK_THAT(refusal(MixerType::Gla, [](C& c) { c.redraw_every = 5; }),
             Contains("identity has no random matrix"));
  CHECK_THAT(refusal(MixerType::Gla, [](C& c) { c.hedgehog_form = HedgehogForm::Joint2x; }),
             Contains("hedgehog_form only"));
  CHECK_THAT(refusal(MixerType::Hedgehog, [](C& c) { c.feature_dim = 7; }), Contains("even"));
  CHECK_THAT(refusal(MixerType::Gla, [](C& c) { c.feature_dim = 4, c.qk_dim = 8; }),
             Contains("feature_dim = qk_dim with identity"));
  const auto dpfp_with = [](int64_t K, int64_t nu) {
    return refusal(MixerType::LinearElu, [=](C& c) {
      c.feature_map = FeatureMap::Dpfp;
      c.feature_dim = K;
      c.dpfp_nu = nu;
    });
  };
  CHECK(dpfp_with(24, 3) == "no error");
  CHECK_THAT(dpfp_with(25, 3), Contains("2 dpfp_nu qk_dim"));
  CHECK_THAT(dpfp_with(0, 16), Contains("dpfp_nu below 2 qk_dim (16)"));
  CHECK_THAT(dpfp_with(0, 0), Contains("dpfp_nu of at least 1"));
}

}  // namespace regla::test
