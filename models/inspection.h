#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// Parameters of one part of a decoder, added up over its layers.
struct PartSize {
  std::string part;  ///< `embedding`, `<mixer>.<projection>`, `mlp`, `norms` or `head`
  int64_t parameters = 0;
};

/// The parts in the order of the computation; a hybrid's mixers are counted apart. With tied
/// embeddings there is no `head`.
std::vector<PartSize> parameters_by_part(const Decoder& decoder);
int64_t parameter_count(const Decoder& decoder);

/// The mixer of one layer in numbers.
struct MixerSize {
  int64_t layer = 0;
  std::string type;
  int64_t parameters = 0;
  double forward_flops_per_token = 0;  ///< over segments of the length asked for
  int64_t state_bytes = 0;             ///< per sequence, after so many tokens
};
std::vector<MixerSize> mixers_by_layer(const Decoder& decoder, int64_t length);

/// Floating-point operations per token of a forward pass over segments of `length` tokens: 2 per
/// element of every matrix a token is multiplied with, plus what the mixers do between
/// (docs/flops.md). Norms, activations and the embedding's lookup are left out.
double forward_flops_per_token(const Decoder& decoder, int64_t length);
/// The same for forward and backward together, which is three times as much.
double training_flops_per_token(const Decoder& decoder, int64_t length);

/// Bytes that all mixers together remember of one sequence after `length` tokens.
int64_t state_bytes(const Decoder& decoder, int64_t length);

}  // namespace regla
