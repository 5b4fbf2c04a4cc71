#include "models/configuration.h"

#include <limits>
#include <string>

#include "core/check.h"

namespace regla {
namespace {

/// Products of two such sizes fit into 63 bits.
constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

void check_size(const std::string& key, int64_t value, int64_t least) {
  check(value >= least && value <= kLargest, "[config] expected ", key, " from ", least, " to ",
        kLargest, ", got ", value);
}

void check_rope(const MixerConfig& mixer, int64_t qk_dim, const std::string& where) {
  const Rope rope = resolved_rope(mixer);
  if (rope == Rope::None) return;
  check(mixer.rope_base > 0, "[config] expected ", where, ".rope_base above 0, got ",
        mixer.rope_base);
  if (rope == Rope::Full) {
    check(qk_dim % 2 == 0, "[config] expected an even number of features per head for ", where,
          ".rope = full, got ", qk_dim, " (", where, ".feature_dim, or hidden/heads)");
    return;
  }
  check(mixer.rotary_pct > 0 && mixer.rotary_pct <= 1, "[config] expected ", where,
        ".rotary_pct in (0, 1], got ", mixer.rotary_pct);
  const int64_t rotated = rotary_dim(mixer, qk_dim);
  check(rotated > 0 && rotated % 2 == 0, "[config] expected ", where,
        ".rotary_pct to rotate an even number of features of a head, got ", rotated, " of ",
        qk_dim);
}

void check_mixer(const MixerConfig& mixer, int64_t head_dim, const std::string& where) {
  check_size(where + ".feature_dim", mixer.feature_dim, 0);
  check_size(where + ".qk_dim", mixer.qk_dim, 0);
  check_size(where + ".dpfp_nu", mixer.dpfp_nu, 1);
  check_size(where + ".feature_seed", mixer.feature_seed, 0);
  check_size(where + ".redraw_every", mixer.redraw_every, 0);
  check_size(where + ".gate_rank", mixer.gate_rank, 1);
  check_size(where + ".chunk", mixer.chunk, 0);
  check_size(where + ".window", mixer.window, 0);
  check(mixer.norm_epsilon >= 0, "[config] expected ", where, ".norm_epsilon of at least 0, got ",
        mixer.norm_epsilon);
  check_combination(mixer, head_dim, where);
  check_rope(mixer, feature_sizes(mixer, head_dim).qk_dim, where);
}

/// What an entry of the list of mixers is called.
std::string key_of(const std::vector<MixerConfig>& mixers, size_t entry) {
  return mixers.size() == 1 ? "mixer" : "mixer." + std::to_string(entry);
}

MixerConfig resolved_mixer(const ModelConfig& model, MixerConfig mixer) {
  const FeatureSizes sizes = feature_sizes(mixer, model.head_dim());
  mixer.feature_dim = sizes.K;
  mixer.qk_dim = sizes.qk_dim;
  mixer.score_scale = resolved_score_scale(mixer);
  mixer.rope = resolved_rope(mixer);
  return mixer;
}

}  // namespace

MixerConfig ModelConfig::mixer_of(int64_t layer) const {
  check(layer >= 0 && layer < layers, "[config] no layer ", layer, " in a model of ", layers);
  return resolved_mixer(*this, mixer.size() == 1 ? mixer[0] : mixer.at(static_cast<size_t>(layer)));
}

ModelConfig ModelConfig::resolved() const {
  ModelConfig full = *this;
  full.mlp = mlp_width();
  for (MixerConfig& entry : full.mixer) entry = resolved_mixer(*this, entry);
  return full;
}

void ModelConfig::validate() const {
  check_size("layers", layers, 1);
  check_size("hidden", hidden, 1);
  check_size("heads", heads, 1);
  check_size("mlp", mlp, 0);
  check_size("vocab", vocab, 0);
  check_size("sequence_length", sequence_length, 1);
  check(hidden % heads == 0, "[config] expected hidden to be a multiple of heads, got hidden ",
        hidden, " and heads ", heads);
  check(dropout >= 0 && dropout < 1, "[config] expected dropout in [0, 1), got ", dropout);
  check(layer_norm_epsilon > 0, "[config] expected layer_norm_epsilon above 0, got ",
        layer_norm_epsilon);
  check(mixer.size() == 1 || static_cast<int64_t>(mixer.size()) == layers,
        "[config] expected one mixer, or one for each of the ", layers, " layers, got ",
        mixer.size());
  for (size_t i = 0; i < mixer.size(); ++i) {
    check_mixer(mixer[i], head_dim(), key_of(mixer, i));
  }
}

void ModelConfig::require_step_form() const {
  for (size_t i = 0; i < mixer.size(); ++i) check_step_form(mixer[i], key_of(mixer, i));
}

}  // namespace regla
