#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// What becomes of the softmax attention of a trained decoder (docs/pythia.md, "Linearise").
struct Linearisation {
  MixerConfig mixer;            ///< in place of it
  std::vector<int64_t> layers;  ///< where, ascending, counted from 0
  /// Whether queries, keys, values and output stay what they were; else all of the new mixer
  /// begins at random, as in the paper.
  bool keep_projections = false;
  /// Whether queries and keys turn as they did, whatever the mixer says.
  bool keep_rotation = false;
};

/// Layers by a text: `all`, `alternate` (1, 3, 5, ..., as the paper's hybrid has them) or numbers
/// with commas between, of a decoder with so many. An Error for anything else.
std::vector<int64_t> layers_named(std::string_view text, int64_t layers);

/// Parameters of all layers that share a fate.
struct ParameterGroup {
  std::string name;  ///< `embed_in`, `mlp.in`, `mixer.query`, ...
  int64_t parameters = 0;
};

struct LinearisationReport {
  std::vector<ParameterGroup> kept;      ///< as they were
  std::vector<ParameterGroup> replaced;  ///< drawn anew, where there were others of that name
  std::vector<ParameterGroup> added;     ///< drawn, and new in name
};

/// The configuration of the decoder that `linearised` makes. Errors: no layers, one that is not
/// there or not softmax attention, and what ModelConfig::validate refuses.
ModelConfig linearised_config(const ModelConfig& config, const Linearisation& plan);

/// A decoder with other mixers in some layers and the weights of `trained`, with which it may share
/// memory; what it has not is drawn as for a decoder of this seed. An Error where projections are
/// to be kept whose shapes are others in the new mixer.
std::unique_ptr<Decoder> linearised(const Decoder& trained, const Linearisation& plan,
                                    uint64_t seed, LinearisationReport& report);

}  // namespace regla
