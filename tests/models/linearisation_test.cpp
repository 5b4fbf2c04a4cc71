#include "models/linearisation.h"

#include <map>

#include "models/generation.h"
#include "tests/error_of.h"
#include "tests/matchers.h"
#include "tests/models/token_by_token.h"
#include "tests/support.h"

namespace regla::test {
namespace {

ModelConfig softmax_model() {
  ModelConfig config;
  config.layers = 4;
  config.hidden = 24;
  config.heads = 2;
  config.mlp = 20;
  config.vocab = 31;
  config.parallel_residual = true;
  config.mixer = {preset(MixerType::Softmax)};
  config.mixer[0].rope = Rope::Partial;
  config.mixer[0].rotary_pct = 0.5;
  config.mixer[0].rope_base = 500;
  return config;
}

/// A decoder whose weights are all other than those it began with.
Decoder trained_decoder(const ModelConfig& config = softmax_model(), DType dtype = DType::F32) {
  Decoder decoder(config, 1, dtype);
  uint64_t seed = 100;
  for (Parameter* parameter : decoder.parameters()) {
    parameter->value = normal_tensor(parameter->value.shape(), parameter->value.dtype(), seed++);
    if (parameter->copy) parameter->keep_copy(dtype);
  }
  return decoder;
}

std::map<std::string, Tensor> weights(const Decoder& decoder) {
  std::map<std::string, Tensor> all;
  for (const Parameter* parameter : decoder.parameters()) all[parameter->name] = parameter->value;
  return all;
}

std::vector<std::string> names(const std::vector<ParameterGroup>& groups) {
  std::vector<std::string> all;
  for (const ParameterGroup& group : groups) all.push_back(group.name);
  return all;
}

int64_t total(const std::vector<ParameterGroup>& groups) {
  int64_t sum = 0;
  for (const ParameterGroup& group : groups) sum += group.parameters;
  return sum;
}

bool is_projection(const std::string& name) {
  for (const char* part : {"query", "key", "value", "output"}) {
    if (name.find(".mixer." + std::string(part) + ".") != std::string::npos) return true;
  }
  return false;
}

const std::vector<std::string> kAround = {"embed_in", "norm1",      "norm2",    "mlp.in",
                                          "mlp.out",  "final_norm", "embed_out"};
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a linearised decoder keeps what is asked for and draws the rest as a new one does") {
  const Decoder trained = trained_decoder();
  const auto before = weights(trained);
  for (const bool keep : {false, true}) {
    for (int type = 0; type < static_cast<int>(names_of(MixerType{}).size()); ++type) {
      INFO(names_of(MixerType{})[static_cast<size_t>(type)] << ", keep " << keep);
      const Linearisation plan = {.mixer = preset(static_cast<MixerType>(type)),
                                  .layers = {0, 2},
                                  .keep_projections = keep};
      LinearisationReport report;
      const auto decoder = linearised(trained, plan, 9, report);
      const auto drawn = weights(Decoder(decoder->config(), 9));
      int64_t parameters = 0;
      for (const auto& [name, value] : weights(*decoder)) {
        INFO(name);
        const bool is_replaced =
            name.starts_with("layers.0.mixer.") || name.starts_with("layers.2.mixer.");
        const bool is_kept = !is_replaced || (keep && is_projection(name));
        CHECK(same_bits(value, is_kept ? before.at(name) : drawn.at(name)));
        parameters += value.numel();
      }
      CHECK(total(report.kept) + total(report.replaced) + total(report.added) == parameters);
      CHECK(report.replaced.empty() == keep);
      for (int64_t layer = 0; layer < 4; ++layer) {
        const MixerType expected = layer % 2 == 0 ? plan.mixer.type : MixerType::Softmax;
        CHECK(decoder->config().mixer_of(layer).type == expected);
      }
    }
  }
}

TEST_CASE("what was kept, replaced and added is told by name") {
  const Decoder trained = trained_decoder();
  LinearisationReport report;
  const std::vector<int64_t> all = {0, 1, 2, 3};
  linearised(trained, {.mixer = {}, .layers = all}, 1, report);
  CHECK(names(report.kept) == kAround);
  CHECK(names(report.replaced) == Names{"mixer.query", "mixer.key", "mixer.value", "mixer.output"});
  CHECK(report.replaced[0].parameters == 4 * (24 * 24 + 24));
  CHECK(names(report.added) == Names{"mixer.gate", "mixer.refine", "mixer.norm"});
  LinearisationReport kept;
  linearised(trained, {.mixer = {}, .layers = {1}, .keep_projections = true}, 1, kept);
  CHECK(kept.replaced.empty());
  CHECK(kept.added[0].parameters == 24 * 24 + 24);
}

TEST_CASE("attention in place of the same attention computes the same") {
  Decoder trained = trained_decoder();
  const Tensor ids = random_ids({2, 11}, 3, 31);
  LinearisationReport report;
  const Linearisation plan = {.mixer = preset(MixerType::Softmax),
                              .layers = {0, 1, 2, 3},
                              .keep_projections = true,
                              .keep_rotation = true};
  const auto same = linearised(trained, plan, 1, report);
  CHECK(same->config() == trained.config());
  CHECK(same_bits(all_logits(*same, ids), all_logits(trained, ids)));
  CHECK(report.added.empty());
  // In BF16 products read the copies, which are kept as well.
  Decoder narrow = trained_decoder(softmax_model(), DType::BF16);
  const auto again = linearised(narrow, plan, 1, report);
  CHECK(same_bits(all_logits(*again, ids), all_logits(narrow, ids)));
}

TEST_CASE("queries and keys turn as they did where that is asked for") {
  const ModelConfig config = softmax_model();
  const auto rope = [&](bool keep) {
    const Linearisation plan = {.mixer = {}, .layers = {3}, .keep_rotation = keep};
    return linearised_config(config, plan).mixer_of(3);
  };
  CHECK(rope(false).rope == Rope::None);
  CHECK(rope(false).rope_base == 10000);
  CHECK(rope(true).rope == Rope::Partial);
  CHECK(rope(true).rotary_pct == 0.5);
  CHECK(rope(true).rope_base == 500);
}

TEST_CASE("layers are all, alternate or numbers") {
  using Layers = std::vector<int64_t>;
  CHECK(layers_named("all", 3) == Layers{0, 1, 2});
  CHECK(layers_named("alternate", 4) == Layers{1, 3});
  CHECK(layers_named("alternate", 2) == Layers{1});
  CHECK(layers_named("2,0", 3) == Layers{0, 2});
  CHECK(layers_named("1", 3) == Layers{1});
  CHECK_THROWS_WITH(layers_named("alternate", 1), Contains("in a model of 1"));
  for (const char* text : {"", ",", "0,", "0,,1", "3", "-1", "0 1", "every", "0,1,x", "1e0"}) {
    CHECK_THROWS_WITH(layers_named(text, 3), Contains("numbers from 0 to 2"));
  }
  CHECK_THROWS_WITH(layers_named("1,0,1", 3), Contains("each layer once, got 1 twice"));
}

TEST_CASE("what cannot be linearised is refused by what it is") {
  const Decoder trained = trained_decoder();
  LinearisationReport report;
  const auto message = [&](const Decoder& decoder, const Linearisation& plan) {
    return error_of([&] { linearised(decoder, plan, 1, report); });
  };
  CHECK_THAT(message(trained, {.mixer = {}, .layers = {}}), Contains("got none"));
  CHECK_THAT(message(trained, {.mixer = {}, .layers = {4}}), Contains("no layer 4"));
  MixerConfig narrow;
  narrow.feature_dim = 6;
  CHECK_THAT(
      message(trained, {.mixer = narrow, .layers = {2}, .keep_projections = true}),
      Contains("cannot keep layers.2.mixer.query.weight of the shape [24, 24]: the mixer's has "
               "[12, 24]"));
  CHECK(message(trained, {.mixer = narrow, .layers = {2}}) == "no error");
  const auto hybrid = linearised(trained, {.mixer = {}, .layers = {1}}, 1, report);
  CHECK_THAT(message(*hybrid, {.mixer = {}, .layers = {0, 1}}),
             Contains("softmax attention in layer 1, got regla"));
  MixerConfig wrong;
  wrong.gate_rank = 0;
  CHECK_THAT(message(trained, {.mixer = wrong, .layers = {0}}), Contains("gate_rank"));
}

TEST_CASE("a mixer that is left out adds nothing, as one whose output is zero") {
  const Tensor ids = random_ids({2, 9}, 1, 31);
  for (const bool is_hybrid : {false, true}) {
    ModelConfig config = softmax_model();
    if (is_hybrid) {
      const MixerConfig softmax = config.mixer[0], regla = preset(MixerType::Regla);
      config.mixer = {regla, softmax, regla, softmax};
    }
    CAPTURE(is_hybrid);
    Decoder whole = trained_decoder(config, DType::F64);
    Decoder without = trained_decoder(config, DType::F64);
    int64_t softmax = 0;
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      if (config.mixer_of(layer).type != MixerType::Softmax) continue;
      ++softmax;
      const std::string output = "layers." + std::to_string(layer) + ".mixer.output.";
      for (Parameter* parameter : whole.parameters()) {
        if (parameter->name.starts_with(output)) parameter->value.fill(0);
      }
    }
    CHECK(without.leave_out_mixers(MixerType::Softmax) == softmax);
    const Tensor expected = whole.logits(whole.hidden(ids)).value;
    CHECK(relative_error(without.logits(without.hidden(ids)).value, expected) < 1e-12);
    DecoderState state = without.initial_state(2);
    const Tensor steps = token_by_token(
        without, ids, [&](const Tensor& token) { return without.step(token, state); });
    CHECK(relative_error(steps, expected) < 1e-10);
  }
}

}  // namespace regla::test
