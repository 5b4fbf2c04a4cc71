#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "autograd/ops.h"
#include "layers/mixer_config.h"

namespace regla {

constexpr std::array<std::string_view, 2> names_of(Gelu) { return {"erf", "tanh"}; }

/// The decoder (docs/math.md, "The decoder"). The defaults are the paper's 160M model.
struct ModelConfig {
  int64_t layers = 12;
  int64_t hidden = 768;
  int64_t heads = 12;
  int64_t mlp = 0;
  int64_t vocab = 0;
  std::vector<MixerConfig> mixer = {MixerConfig{}};
  bool parallel_residual = false;
  Gelu gelu = Gelu::Erf;
  double layer_norm_epsilon = 1e-5;
  double dropout = 0.1;
  bool tie_embeddings = false;
  int64_t sequence_length = 2048;

  /// V, the values of a head.
  int64_t head_dim() const { return hidden / heads; }
  int64_t mlp_width() const { return mlp > 0 ? mlp : 4 * hidden; }
  /// K of a mixer, its 0 resolved.
  int64_t feature_dim(const MixerConfig& config) const {
    return feature_sizes(config, head_dim()).K;
  }
  /// The mixer of a layer, counted from 0, with nothing left to resolve.
  MixerConfig mixer_of(int64_t layer) const;
  /// The same configuration with the defaults that depend on other keys (mlp, feature_dim,
  /// qk_dim, rope, score_scale) written out. `vocab` stays 0 until a tokenizer is known.
  ModelConfig resolved() const;
  /// An Error naming the key unless the configuration describes a decoder.
  void validate() const;

  /// An Error naming the key unless tokens can be decoded one by one, which Decoder::step needs.
  void require_step_form() const;

  bool operator==(const ModelConfig&) const = default;
};

/// Rows of the embedding for a tokenizer with so many entries: the next multiple of 128.
constexpr int64_t padded_vocab(int64_t entries) { return (entries + 127) / 128 * 128; }

/// Calls `visit(name, member, meaning)` for every key of a model, in the order they are written.
template <class Config, class Visitor>
requires std::same_as<std::remove_const_t<Config>, ModelConfig>
void fields(Config& c, Visitor&& visit) {
  visit("layers", c.layers, "L, blocks of mixer and MLP");
  visit("hidden", c.hidden, "D, model width; a multiple of heads");
  visit("heads", c.heads, "H, heads of every mixer");
  visit("mlp", c.mlp, "inner width of the MLP; 0: 4 hidden");
  visit("vocab", c.vocab, "rows of the embedding; 0: the tokenizer's, up to a multiple of 128");
  visit("mixer", c.mixer,
        "a mixer's name, an object with the keys below, or a list of those, one per layer");
  visit("parallel_residual", c.parallel_residual,
        "mixer and MLP read the same input (Pythia) instead of one after the other (the paper)");
  visit("gelu", c.gelu, "exact or approximate GELU in the MLP");
  visit("layer_norm_epsilon", c.layer_norm_epsilon, "added to the variance in every LayerNorm");
  visit("dropout", c.dropout, "on embeddings, mixer output and MLP output, in [0, 1)");
  visit("tie_embeddings", c.tie_embeddings, "the output projection is the embedding");
  visit("sequence_length", c.sequence_length, "T, tokens of a training segment");
}

}  // namespace regla
