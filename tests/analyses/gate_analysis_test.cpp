#include "analyses/gate_analysis.h"

#include <cmath>
#include <limits>

#include "tests/catch.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

ModelConfig small_model(const MixerConfig& mixer) {
  ModelConfig config;
  config.layers = 2;
  config.hidden = 8;
  config.heads = 2;
  config.mlp = 16;
  config.vocab = 32;
  config.mixer = {mixer};
  return config;
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

/// Makes every gate of a decoder the same, whatever the token.
void fix_gates(Decoder& decoder, double z_g, double z_r) {
  for (Parameter* parameter : decoder.parameters()) {
    const bool forget = parameter->name.find(".gate") != std::string::npos;
    const bool refine = parameter->name.find(".refine") != std::string::npos;
    if (!forget && !refine) continue;
    parameter->value.fill(parameter->name.ends_with(".bias") ? (forget ? z_g : z_r) : 0);
  }
}

}  // namespace

TEST_CASE("gradients of the gate are the closed form's") {
  const std::vector<double> z_g = {-20, -4, -0.3, 0, 1.2, 5, 20}, z_r = {3, -6, 0, 2, -0.5, 6, 1};
  const Tensor z = Tensor::of({7}, z_g);
  const GateGradient refined = gate_gradient(z, Tensor::of({7}, z_r));
  const GateGradient plain = gate_gradient(z, {});
  CHECK(!plain.d_z_r.defined());
  for (size_t i = 0; i < z_g.size(); ++i) {
    const double g = sigmoid(z_g[i]), not_g = sigmoid(-z_g[i]);
    const double r = sigmoid(z_r[i]), not_r = sigmoid(-z_r[i]);
    CHECK(refined.F.values()[i] == Approx(not_r * g * g + r * (1 - not_g * not_g)).epsilon(1e-7));
    const double d_z_g = 2 * g * not_g * (not_r * g + r * not_g);
    CHECK(refined.d_z_g.values()[i] == Approx(d_z_g).epsilon(1e-9));
    CHECK(refined.d_z_r.values()[i] == Approx(2 * g * not_g * r * not_r).epsilon(1e-9));
    CHECK(plain.F.values()[i] == Approx(g).epsilon(1e-12));
    CHECK(plain.d_z_g.values()[i] == Approx(g * not_g).epsilon(1e-12));
  }
}

TEST_CASE("a temperature takes a root of the gate") {
  const Tensor z_g = Tensor::of({1}, std::vector<double>{0.7}),
               z_r = Tensor::zeros({1}, DType::F64);
  const auto at = [&](double shift) {
    return gate_gradient(Tensor::of({1}, std::vector<double>{0.7 + shift}), z_r, 16).F.values()[0];
  };
  CHECK(at(0) == Approx(std::pow(sigmoid(0.7), 1.0 / 16)));
  CHECK(gate_gradient(z_g, z_r, 16).d_z_g.values()[0] ==
        Approx((at(1e-5) - at(-1e-5)) / 2e-5).epsilon(1e-6));
}

TEST_CASE("statistics of gates that are all the same") {
  Decoder decoder(small_model({}), 0, DType::F64);
  fix_gates(decoder, -2, 1);
  const double g = sigmoid(-2), r = sigmoid(1), F = g * (g + 2 * r * (1 - g));
  const std::vector<LayerGates> layers = observe_gates(decoder, random_ids({3, 5}, 1, 32));
  REQUIRE(layers.size() == 2);
  for (const LayerGates& layer : layers) {
    const GateStatistics& s = layer.gates;
    CHECK(s.count == 3 * 5 * 8);
    CHECK(s.mean(s.sum) == Approx(F));
    CHECK(s.deviation() < 1e-6);
    CHECK(s.bins[static_cast<size_t>(F * GateStatistics::kBins)] == s.count);
    CHECK(s.low == 0);
    CHECK(s.high == 0);
    CHECK(s.mean(s.gradient) == Approx(2 * g * (1 - g) * ((1 - r) * g + r * (1 - g))));
    CHECK(s.mean(s.sigmoid_gradient) == Approx(g * (1 - g)));
    CHECK(s.mean(s.sigmoid_gradient_at_value) == Approx(F * (1 - F)));
    CHECK(*memory_length(layer) == Approx(-1 / std::log(F)));
  }
  CHECK(all_layers(layers).gates.count == 2 * 3 * 5 * 8);
  CHECK(*memory_length(all_layers(layers)) == Approx(-1 / std::log(F)));
}

TEST_CASE("saturated gates are counted on either side") {
  Decoder decoder(small_model({}), 0, DType::F64);
  fix_gates(decoder, -6, 0);
  const Tensor ids = random_ids({1, 4}, 1, 32);
  CHECK(all_layers(observe_gates(decoder, ids)).gates.low == 2 * 4 * 8);
  fix_gates(decoder, 6, 0);
  CHECK(all_layers(observe_gates(decoder, ids)).gates.high == 2 * 4 * 8);
  fix_gates(decoder, std::numeric_limits<double>::infinity(), 0);
  const LayerGates open = all_layers(observe_gates(decoder, ids));
  CHECK(open.gates.bins.back() == open.gates.count);
  CHECK(std::isinf(*memory_length(open)));
}

TEST_CASE("the decays of two axes add up, and softmax attention has none") {
  ModelConfig config = small_model({});
  config.mixer = {preset(MixerType::FastDecay), MixerConfig{.type = MixerType::Softmax}};
  Decoder decoder(config, 0, DType::F64);
  fix_gates(decoder, 1, 0);
  const std::vector<LayerGates> layers = observe_gates(decoder, random_ids({2, 3}, 1, 32));
  CHECK(layers[0].gates.count == 2 * 3 * (8 + 8));
  CHECK(*memory_length(layers[0]) == Approx(-1 / (2 * std::log(sigmoid(1)))));
  CHECK(!layers[1].gated());
  CHECK(!memory_length(layers[1]));
  CHECK(*memory_length(all_layers(layers)) == Approx(*memory_length(layers[0])));
}

TEST_CASE("every gated mixer shows its gates, and looking changes nothing") {
  const Tensor ids = random_ids({2, 9}, 4, 32), reset = random_mask({2, 9}, 5, 0.3);
  for (size_t i = 0; i < names_of(MixerType{}).size(); ++i) {
    const MixerConfig mixer = preset(static_cast<MixerType>(i));
    CAPTURE(name_of(mixer.type));
    Decoder decoder(small_model(mixer), 3);
    // The delta rule's gate is the strength of a write and decays nothing.
    const bool decays = mixer.type != MixerType::Softmax && mixer.type != MixerType::DeltaNet;
    const bool gated = decays && mixer.gate != Gate::None;
    CHECK(observe_gates(decoder, ids, reset)[1].gated() == gated);
    const Observer observer = [](int64_t, std::string_view, const Tensor&) {};
    CHECK(same_bits(decoder.hidden(ids, {.reset = reset, .observer = &observer}).value,
                    decoder.hidden(ids, {.reset = reset}).value));
  }
}

TEST_CASE("gates do not depend on how many rows go at once") {
  Decoder decoder(small_model({}), 0, DType::F64);
  const Tensor ids = random_ids({5, 6}, 1, 32);
  const LayerGates all = observe_gates(decoder, ids, {}, 5)[1];
  const LayerGates parts = observe_gates(decoder, ids, {}, 2)[1];
  CHECK(all.gates.bins == parts.gates.bins);
  CHECK(all.mean_log_decay == Approx(parts.mean_log_decay).epsilon(1e-12));
}

TEST_CASE("a gate that is not a number is refused") {
  Decoder decoder(small_model({}), 0);
  fix_gates(decoder, std::numeric_limits<double>::quiet_NaN(), 0);
  CHECK_THAT(error_of([&] {
               observe_gates(decoder, random_ids({1, 2}, 1, 32));
             }),
             Contains("layer 0 is not a number"));
}

}  // namespace regla::test
