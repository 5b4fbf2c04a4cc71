#include "analyses/score_analysis.h"

#include <cmath>
#include <map>
#include <numbers>

#include "layers/feature_maps.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

double deviation(const std::vector<double>& values) {
  double mean = 0, variance = 0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (const double value : values) {
    variance += (value - mean) * (value - mean) / static_cast<double>(values.size());
  }
  return std::sqrt(variance);
}

}  // namespace

TEST_CASE("the theorem's standard deviations are the paper's") {
  const double e = std::numbers::e;
  const ScoreSpread theorem = score_theorem(64);
  CHECK(theorem.identity == Approx(8));
  CHECK(theorem.exp == Approx(e * std::sqrt(64 * (e * e - 1))));
  CHECK(theorem.exp * score_scale(ScoreScale::Variance, 64) == Approx(1));
  CHECK(theorem.safe_exp == Approx(theorem.exp * std::exp(-2 * std::sqrt(2 * std::log(64.0)))));
}

TEST_CASE("inner products of normal vectors spread as Theorem 3.1 says") {
  const ScoreSpread measured = gaussian_scores(64, 40000, 1), theorem = score_theorem(64);
  CHECK(measured.pairs == 40000);
  CHECK(measured.query == Approx(1).epsilon(0.01));
  CHECK(measured.identity == Approx(theorem.identity).epsilon(0.02));
  CHECK(measured.exp == Approx(theorem.exp).epsilon(0.05));
  CHECK(measured.exp * score_scale(ScoreScale::Variance, 64) == Approx(1).epsilon(0.05));
  CHECK(measured.safe_exp < measured.exp / 10);
  CHECK(gaussian_scores(64, 1500, 1).exp == gaussian_scores(64, 1500, 1).exp);
  CHECK(gaussian_scores(64, 1500, 1).exp != gaussian_scores(64, 1500, 2).exp);
}

TEST_CASE("scores on text are those of a loop over all pairs") {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 8;
  config.heads = 2;
  config.vocab = 32;
  config.mixer = {MixerConfig{.rope = Rope::Full}, MixerConfig{.type = MixerType::Softmax}};
  Decoder decoder(config, 0, DType::F64);
  constexpr int64_t kB = 2, kT = 7, kH = 2, kd = 4;
  const Tensor ids = random_ids({kB, kT}, 1, 32);
  std::map<std::string, std::vector<double>> seen;
  const Observer observer = [&](int64_t layer, std::string_view name, const Tensor& value) {
    if (layer == 0) seen[std::string(name)] = value.values();
  };
  decoder.hidden(ids, {.reset = {}, .observer = &observer});
  const auto at = [&](const char* name, int64_t b, int64_t t, int64_t h, int64_t i) {
    return seen[name][static_cast<size_t>(((b * kT + t) * kH + h) * kd + i)];
  };
  std::vector<double> identity, exp, safe;
  for (int64_t b = 0; b < kB; ++b) {
    for (int64_t h = 0; h < kH; ++h) {
      double key_maximum = -INFINITY;
      for (int64_t s = 0; s < kT * kd; ++s) {
        key_maximum = std::max(key_maximum, at("key", b, s / kd, h, s % kd));
      }
      for (int64_t t = 0; t < kT; ++t) {
        double maximum = -INFINITY;
        for (int64_t i = 0; i < kd; ++i) maximum = std::max(maximum, at("query", b, t, h, i));
        for (int64_t s = 0; s <= t; ++s) {
          double plain = 0, exponential = 0;
          for (int64_t i = 0; i < kd; ++i) {
            plain += at("query", b, t, h, i) * at("key", b, s, h, i);
            exponential += std::exp(at("query", b, t, h, i) + at("key", b, s, h, i));
          }
          identity.push_back(plain);
          exp.push_back(exponential);
          safe.push_back(exponential * std::exp(-maximum - key_maximum));
        }
      }
    }
  }
  const std::vector<ScoreSpread> spreads = text_scores(decoder, ids);
  CHECK(spreads[0].dimension == kd);
  CHECK(spreads[0].pairs == kB * kH * kT * (kT + 1) / 2);
  CHECK(spreads[0].query == Approx(deviation(seen["query"])).epsilon(1e-9));
  CHECK(spreads[0].key == Approx(deviation(seen["key"])).epsilon(1e-9));
  CHECK(spreads[0].identity == Approx(deviation(identity)).epsilon(1e-9));
  CHECK(spreads[0].exp == Approx(deviation(exp)).epsilon(1e-6));
  CHECK(spreads[0].safe_exp == Approx(deviation(safe)).epsilon(1e-6));
  CHECK(spreads[1].pairs == spreads[0].pairs);  // softmax attention has queries and keys too
}

}  // namespace regla::test
