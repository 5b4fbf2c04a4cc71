#pragma once

#include <cstdint>

#include "models/decoder.h"
#include "training/configuration.h"

namespace regla {

/// What training takes of a device's memory, in bytes.
struct MemoryNeeds {
  int64_t weights = 0;       ///< masters, and their copies in the type of activations
  int64_t gradients = 0;     ///< of all parameters at once, at the end of a backward pass
  int64_t moments = 0;       ///< AdamW's two
  int64_t other = 0;         ///< what else does not grow with the batch
  int64_t per_sequence = 0;  ///< activations of each sequence that is computed at once

  /// With so many sequences at once: batch_size / micro_batches of them.
  int64_t with(int64_t sequences) const {
    return weights + gradients + moments + other + sequences * per_sequence;
  }
};

/// Measured by updates of one and of two sequences of the configured length on the decoder's
/// device. The decoder's weights are others then. An Error of memory where two do not fit.
MemoryNeeds measure_memory_needs(const TrainingConfig& config, Decoder& decoder);

}  // namespace regla
