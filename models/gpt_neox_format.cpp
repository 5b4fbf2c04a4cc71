#include "models/gpt_neox_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

namespace regla {
namespace {

constexpr std::string_view kLayers = "layers.";                // before a layer's number, here
constexpr std::string_view kTheirLayers = "gpt_neox.layers.";  // and there

/// A layer's modules, by what comes between the layer's number and `.weight` or `.bias`.
struct Module {
  std::string_view ours, theirs;
  int64_t part;
};
constexpr std::array<Module, 8> kModules = {{{"norm1", "input_layernorm", -1},
                                             {"norm2", "post_attention_layernorm", -1},
                                             {"mixer.query", "attention.query_key_value", 0},
                                             {"mixer.key", "attention.query_key_value", 1},
                                             {"mixer.value", "attention.query_key_value", 2},
                                             {"mixer.output", "attention.dense", -1},
                                             {"mlp.in", "mlp.dense_h_to_4h", -1},
                                             {"mlp.out", "mlp.dense_4h_to_h", -1}}};

/// Activations by their names there; the first of each kind is what is written.
constexpr std::array<std::pair<std::string_view, Gelu>, 6> kActivations = {
    {{"gelu", Gelu::Erf},
     {"gelu_python", Gelu::Erf},
     {"gelu_pytorch_tanh", Gelu::Tanh},
     {"gelu_python_tanh", Gelu::Tanh},
     {"gelu_new", Gelu::Tanh},
     {"gelu_fast", Gelu::Tanh}}};

/// Sets `value` where the key is there and not null. Returns whether it is.
template <class T>
bool read_key(const Json& json, const char* key, T& value) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return false;
  read_value(*found, key, value);
  return true;
}

int64_t size_at(const Json& json, const char* key) {
  int64_t size = 0;
  check(read_key(json, key, size), "[config] expected the key ", key);
  check(size >= 1, "[config] expected ", key, " of at least 1, got ", size);
  return size;
}

void check_architecture(const Json& json) {
  check(json.is_object(), "[config] expected an object, got ", shown(json));
  std::string type;
  check(read_key(json, "model_type", type), "[config] expected a model_type, got none");
  check(type == "gpt_neox", "[config] expected the model_type \"gpt_neox\", got ", quoted(type));
  const auto found = json.find("architectures");
  if (found != json.end() && found->is_array() && !found->empty()) {
    check((*found)[0] == "GPTNeoXForCausalLM",
          "[config] expected the architecture GPTNeoXForCausalLM, got ", shown((*found)[0]));
  }
  const auto quantised = json.find("quantization_config");
  check(quantised == json.end() || quantised->is_null(),
        "[config] expected weights that are not quantised, got a quantization_config");
}

Gelu activation_of(const Json& json) {
  std::string name = "gelu", list;
  read_key(json, "hidden_act", name);
  for (const auto& [known, gelu] : kActivations) {
    if (name == known) return gelu;
    list += (list.empty() ? "" : ", ") + std::string(known);
  }
  fail("[config] expected hidden_act to be one of ", list, ", got ", quoted(name));
}

struct RotaryKeys {
  double pct = 0.25;
  double base = 10000;
};

void read_rope(const Json& rope, const char* key, RotaryKeys& rotation) {
  check(rope.is_object(), "[config] expected an object for ", key, ", got ", shown(rope));
  std::string type = "default";
  read_key(rope, "type", type);
  read_key(rope, "rope_type", type);
  check(type == "default", "[config] expected rotary positions of the type default in ", key,
        ", got ", quoted(type));
  for (const auto& item : rope.items()) {
    const bool is_known = item.key() == "type" || item.key() == "rope_type" ||
                          item.key() == "rope_theta" || item.key() == "partial_rotary_factor";
    check(is_known || item.value().is_null(), "[config] expected no ", shown_key(item.key()),
          " in ", key, ", got one");
  }
  read_key(rope, "partial_rotary_factor", rotation.pct);
  read_key(rope, "rope_theta", rotation.base);
}

/// `name` without what it begins with, if it does.
bool take_front(std::string_view& name, std::string_view front) {
  if (!name.starts_with(front)) return false;
  name.remove_prefix(front.size());
  return true;
}

/// The number and the dot that a name begins with, taken off; -1: there is none.
int64_t take_layer(std::string_view& name) {
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const auto digits = static_cast<size_t>(end - name.data());
  if (error != std::errc{} || digits >= name.size() || name[digits] != '.') return -1;
  name.remove_prefix(digits + 1);
  return layer;
}

}  // namespace

ModelConfig gpt_neox_config(const Json& json, GptNeoxFacts& facts) {
  check_architecture(json);
  ModelConfig c;
  c.layers = size_at(json, "num_hidden_layers");
  c.hidden = size_at(json, "hidden_size");
  c.heads = size_at(json, "num_attention_heads");
  c.mlp = size_at(json, "intermediate_size");
  c.vocab = size_at(json, "vocab_size");
  c.sequence_length = size_at(json, "max_position_embeddings");
  check(c.hidden % c.heads == 0, "[config] expected hidden_size to be a multiple of ",
        "num_attention_heads, got ", c.hidden, " and ", c.heads);
  int64_t head_dim = c.head_dim();
  read_key(json, "head_dim", head_dim);
  check(head_dim == c.head_dim(), "[config] expected a head_dim of ", c.head_dim(), ", got ",
        head_dim);
  c.gelu = activation_of(json);
  c.parallel_residual = true;
  read_key(json, "use_parallel_residual", c.parallel_residual);
  read_key(json, "layer_norm_eps", c.layer_norm_epsilon);
  read_key(json, "tie_word_embeddings", c.tie_embeddings);
  c.dropout = 0;
  read_key(json, "hidden_dropout", c.dropout);
  read_key(json, "attention_dropout", facts.attention_dropout);
  read_key(json, "attention_bias", facts.attention_bias);
  RotaryKeys rotation;
  read_key(json, "rotary_pct", rotation.pct);
  read_key(json, "rotary_emb_base", rotation.base);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // the first that says anything
    const auto found = json.find(key);
    if (found == json.end() || found->empty()) continue;
    read_rope(*found, key, rotation);
    break;
  }
  c.mixer = {preset(MixerType::Softmax)};
  c.mixer[0].rope_base = rotation.base;
  set_rotation(c, rotation.pct);
  c.validate();
  return c;
}

void set_rotation(ModelConfig& config, double rotary_pct) {
  check(rotary_pct >= 0 && rotary_pct <= 1, "[config] expected a rotary part in [0, 1], got ",
        rotary_pct);
  const auto rotated = static_cast<int64_t>(static_cast<double>(config.head_dim()) * rotary_pct);
  check(rotated % 2 == 0, "[config] expected to rotate an even number of elements of a head, got ",
        rotated, " of ", config.head_dim(), " by the rotary part ", rotary_pct);
  for (MixerConfig& mixer : config.mixer) {
    mixer.rope = rotated == 0                   ? Rope::None
                 : rotated == config.head_dim() ? Rope::Full
                                                : Rope::Partial;
    if (mixer.rope == Rope::Partial) mixer.rotary_pct = rotary_pct;
  }
}

std::string gpt_neox_obstacle(const ModelConfig& config) {
  const MixerConfig first = config.mixer_of(0);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const MixerConfig mixer = config.mixer_of(layer);
    const std::string where = "layer " + std::to_string(layer);
    if (mixer.type != MixerType::Softmax) {
      return where + " is " + std::string(name_of(mixer.type)) + ", not softmax";
    }
    if (mixer.window > 0) return where + " has a window";
    if (mixer.feature_dim != config.head_dim()) {
      return where + " has queries of " + std::to_string(mixer.feature_dim) +
             " elements and values of " + std::to_string(config.head_dim());
    }
    const bool turns_alike =
        mixer.rope_base == first.rope_base &&
        rotary_dim(mixer, mixer.feature_dim) == rotary_dim(first, first.feature_dim);
    if (!turns_alike) return where + " turns otherwise than layer 0";
  }
  return "";
}

Json gpt_neox_json(const ModelConfig& config, DType weights, int32_t end_of_text) {
  const MixerConfig mixer = config.mixer_of(0);
  const double pct = mixer.rope == Rope::Full ? 1 : mixer.rope == Rope::None ? 0 : mixer.rotary_pct;
  const auto gelu = std::find_if(kActivations.begin(), kActivations.end(),
                                 [&](const auto& entry) { return entry.second == config.gelu; });
  const char* const dtype = weights == DType::F64 ? "float64" : "float32";
  return {
      {"architectures", {"GPTNeoXForCausalLM"}},
      {"model_type", "gpt_neox"},
      {"vocab_size", config.vocab},
      {"hidden_size", config.hidden},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"intermediate_size", config.mlp_width()},
      {"hidden_act", std::string(gelu->first)},
      {"layer_norm_eps", config.layer_norm_epsilon},
      {"max_position_embeddings", config.sequence_length},
      {"use_parallel_residual", config.parallel_residual},
      {"tie_word_embeddings", config.tie_embeddings},
      {"attention_bias", true},
      {"attention_dropout", 0.0},
      {"hidden_dropout", config.dropout},
      {"rotary_pct", pct},
      {"rotary_emb_base", mixer.rope_base},
      {"rope_parameters",
       {{"rope_type", "default"}, {"rope_theta", mixer.rope_base}, {"partial_rotary_factor", pct}}},
      {"bos_token_id", end_of_text},
      {"eos_token_id", end_of_text},
      {"torch_dtype", dtype}};
}

GptNeoxPlace gpt_neox_place(const std::string& parameter) {
  if (parameter == "embed_in.weight") return {kGptNeoxEmbedding};
  if (parameter == "embed_out.weight") return {kGptNeoxOutput};
  std::string_view name = parameter;
  if (take_front(name, "final_norm.")) {
    return {"gpt_neox.final_layer_norm." + std::string(name)};
  }
  if (take_front(name, kLayers)) {
    const int64_t layer = take_layer(name);
    const size_t dot = std::min(name.rfind('.'), name.size());
    for (const Module& module : kModules) {
      if (layer < 0 || name.substr(0, dot) != module.ours) continue;
      return {std::string(kTheirLayers) + std::to_string(layer) + "." + std::string(module.theirs) +
                  std::string(name.substr(dot)),
              module.part};
    }
  }
  fail("[gpt_neox] a GPT-NeoX has no parameter ", parameter);
}

bool is_gpt_neox_buffer(const std::string& name, int64_t layers) {
  std::string_view rest = name;
  if (!take_front(rest, kTheirLayers)) return false;
  const int64_t layer = take_layer(rest);
  return layer >= 0 && layer < layers &&
         (rest == "attention.bias" || rest == "attention.masked_bias" ||
          rest == "attention.rotary_emb.inv_freq");
}

}  // namespace regla
