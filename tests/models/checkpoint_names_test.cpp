#include <map>
#include <set>
#include <sstream>

#include "models/decoder.h"
#include "storage/files.h"
#include "tests/catch.h"
#include "tests/support.h"

// docs/checkpoints.md is what others read our files by: every name that any mixer gives to a weight
// or a state stands there, with its shape, and nothing else does.
namespace regla::test {
namespace {

using Sizes = std::map<std::string, int64_t>;

constexpr int64_t B = 2, kLength = 3;

std::vector<std::string> split(const std::string& text, const std::string& at) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end = 0; (end = text.find(at, begin)) != std::string::npos; begin = end + at.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

/// What stands between each `open` and the `close` behind it.
std::vector<std::string> between(const std::string& text, char open, char close) {
  std::vector<std::string> parts;
  for (size_t begin = 0; (begin = text.find(open, begin)) != std::string::npos;) {
    const size_t end = text.find(close, begin + 1);
    REQUIRE(end != std::string::npos);
    parts.push_back(text.substr(begin + 1, end - begin - 1));
    begin = end + 1;
  }
  return parts;
}

/// "H qk_dim, D" for given letters.
Shape evaluated(const std::string& shape, const Sizes& letters) {
  std::vector<int64_t> sizes;
  for (const std::string& product : split(shape, ", ")) {
    sizes.push_back(1);
    for (const std::string& factor : split(product, " ")) sizes.back() *= letters.at(factor);
  }
  return Shape(std::span<const int64_t>(sizes));
}

/// The names and shapes of the document's tables: a row gives one shape to each of its names, and
/// a name that begins with a dot replaces the end of the one before it.
std::map<std::string, std::string> documented() {
  std::map<std::string, std::string> shapes;
  std::istringstream lines(read_file(std::string(REGLA_SOURCE_DIR) + "/docs/checkpoints.md"));
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> cells = split(line, " | ");
    if (!line.starts_with("| `") || cells.size() < 2 || !cells[1].starts_with("[")) continue;
    std::vector<std::string> names = between(cells[0], '`', '`');
    const std::vector<std::string> of_names = between(cells[1], '[', ']');
    INFO(line);
    REQUIRE(names.size() == of_names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i].starts_with(".")) names[i] = names[0].substr(0, names[0].rfind('.')) + names[i];
      CHECK(shapes.emplace(names[i], of_names[i]).second);
    }
  }
  return shapes;
}

/// The letters of the document for a model of one layer.
Sizes letters_of(const ModelConfig& model) {
  const MixerConfig mixer = model.mixer_of(0);
  const int64_t D = model.hidden, V = model.head_dim(), K = mixer.feature_dim;
  const bool per_head = mixer.gate_projection == GateProjection::PerHead;
  const bool low_rank = mixer.gate_projection == GateProjection::LowRank;
  return {{"B", B},
          {"D", D},
          {"H", model.heads},
          {"K", K},
          {"V", V},
          {"F", mixer.feature_map == FeatureMap::Hedgehog ? K / 2 : K},
          {"N", per_head                           ? 1
                : mixer.gate_axis == GateAxis::Key ? K
                                                   : V},
          {"R", low_rank ? mixer.gate_rank : D},
          {"U", V + (mixer.sum_norm ? 1 : 0)},
          {"qk_dim", mixer.qk_dim},
          {"rank", mixer.gate_rank},
          {"mlp", model.mlp_width()},
          {"vocab", model.vocab},
          {"length", kLength}};
}

/// Sizes of which no two letters share one, but for those that the configuration makes equal.
ModelConfig small_model(MixerType type) {
  ModelConfig model;
  model.layers = 1;
  model.hidden = 12;
  model.heads = 2;
  model.mlp = 17;
  model.vocab = 19;
  model.mixer[0] = preset(type);
  model.mixer[0].rope = Rope::None;
  model.mixer[0].gate_rank = 5;
  return model;
}

template <class E>
std::vector<E> all_of() {
  std::vector<E> values;
  for (size_t i = 0; i < names_of(E{}).size(); ++i) values.push_back(static_cast<E>(i));
  return values;
}

/// Adds every combination of the fields that names and shapes depend on and that is not refused.
void add_linear_attentions(MixerType type, std::vector<ModelConfig>& models) {
  const ModelConfig model = small_model(type);
  for (const FeatureMap map : all_of<FeatureMap>()) {
    for (const bool tie : {false, true}) {
      for (const Gate gate : all_of<Gate>()) {
        for (const GateAxis axis : all_of<GateAxis>()) {
          for (const GateProjection projection : all_of<GateProjection>()) {
            for (const bool sum_norm : {false, true}) {
              for (const KeyMax key_max : all_of<KeyMax>()) {
                ModelConfig next = model;
                MixerConfig& c = next.mixer[0];
                c.feature_map = map;
                c.tie_feature_map = tie;
                if (has_matrix(map)) c.qk_dim = 7, c.feature_dim = 8;
                c.gate = gate;
                c.gate_axis = axis;
                c.gate_projection = projection;
                c.sum_norm = sum_norm;
                c.key_max = key_max;
                if (error_of([&] { next.validate(); }) == "no error") models.push_back(next);
              }
            }
          }
        }
      }
    }
  }
}

std::vector<ModelConfig> every_model() {
  std::vector<ModelConfig> models;
  for (const MixerType type : all_of<MixerType>()) models.push_back(small_model(type));
  models.push_back(small_model(MixerType::Softmax));
  models.back().mixer[0].feature_dim = 8;
  models.back().mixer[0].qk_dim = 4;  // not read
  for (const MixerNorm norm : all_of<MixerNorm>()) {
    models.push_back(small_model(MixerType::Gla));
    models.back().mixer[0].norm = norm;
    models.back().tie_embeddings = true;
  }
  for (const MixerType type : {MixerType::Regla, MixerType::DeltaNet}) {
    add_linear_attentions(type, models);
  }
  return models;
}

}  // namespace

TEST_CASE("docs/checkpoints.md has the name and the shape of every tensor that is saved") {
  const std::map<std::string, std::string> shapes = documented();
  std::set<std::string> met, wrong;
  const std::vector<ModelConfig> models = every_model();
  CHECK(models.size() > 500);
  for (const ModelConfig& model : models) {
    const Sizes letters = letters_of(model);
    const auto check_tensor = [&](const std::string& name, const Tensor& tensor) {
      met.insert(name);
      const auto found = shapes.find(name);
      if (found == shapes.end()) {
        wrong.insert(name + " is missing");
      } else if (evaluated(found->second, letters) != tensor.shape()) {
        wrong.insert(name + " [" + found->second + "] of " +
                     std::string(name_of(model.mixer[0].type)));
      }
    };
    Decoder decoder(model, 0);
    for (const Parameter* parameter : decoder.parameters()) {
      const std::string layer = "layers.0.";
      const bool inner = parameter->name.starts_with(layer);
      check_tensor(inner ? "layers.{i}." + parameter->name.substr(layer.size()) : parameter->name,
                   parameter->value);
    }
    DecoderState state = decoder.initial_state(B);
    const Tensor reset = Tensor::of({B, kLength}, std::vector<int32_t>{1, 0, 0, 0, 1, 0});
    const NoGrad guard;
    decoder.hidden(random_ids({B, kLength}, 1, model.vocab), {reset, 0}, &state);
    state.layers[0].for_each([&](const std::string& name, Tensor& tensor) {
      check_tensor(name, tensor);
      CHECK(tensor.dtype() == DType::F32);
    });
    check_tensor("position", state.position);
    CHECK(state.position.dtype() == DType::I32);
  }
  for (const auto& [name, shape] : shapes) {
    if (!met.contains(name)) wrong.insert(name + " is in no model");
  }
  CHECK(wrong == std::set<std::string>{});
}

}  // namespace regla::test
