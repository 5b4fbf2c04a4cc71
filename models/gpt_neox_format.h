#pragma once

#include <cstdint>
#include <string>

#include "models/configuration.h"
#include "storage/json_fields.h"

// What GPT-NeoX calls things. Included by .cpp files only, as storage/json_fields.h.
namespace regla {

/// What of a config.json is no part of a ModelConfig.
struct GptNeoxFacts {
  bool attention_bias = true;    ///< without, the attention's biases are in no file
  double attention_dropout = 0;  ///< there is none here
};

/// The decoder that a config.json describes. Keys are read as `transformers` does: `rope_scaling`
/// before `rope_parameters` before `rotary_pct` and `rotary_emb_base`. Errors name the key: another
/// architecture, a size that is missing, an activation that is no GELU, rotary positions of another
/// kind or of an odd size, quantised weights.
ModelConfig gpt_neox_config(const Json& json, GptNeoxFacts& facts);

/// Has a head turn its leading `rotary_pct` of elements, in [0, 1].
void set_rotation(ModelConfig& config, double rotary_pct);

/// The config.json of such a decoder, for old and new versions of `transformers`.
Json gpt_neox_json(const ModelConfig& config, DType weights, int32_t end_of_text);

/// Where a parameter stands.
struct GptNeoxPlace {
  std::string name;   ///< of the tensor there
  int64_t part = -1;  ///< of `query_key_value`, whose rows are query, key and value of head 0, then
                      ///< of head 1, ...: 0, 1 or 2; -1: the tensor is the parameter
};
/// The place of the parameter of that name; an Error for one that a GPT-NeoX has not.
GptNeoxPlace gpt_neox_place(const std::string& parameter);

constexpr int64_t kGptNeoxParts = 3;
constexpr const char* kGptNeoxEmbedding = "gpt_neox.embed_in.weight";
constexpr const char* kGptNeoxOutput = "embed_out.weight";  // and `lm_head.weight`, if written late

/// Whether a tensor is one of the three that older versions saved beside the weights and that are
/// none: the causal mask, what it masks with, and the rotation's wavelengths.
bool is_gpt_neox_buffer(const std::string& name, int64_t layers);

}  // namespace regla
