#pragma once

#include <cstdint>

#include "models/decoder.h"
#include "training/configuration.h"

namespace regla {

/// What training takes of a device's memory, in bytes.
struct MemoryNeeds {
  int64_t weights = 0;       ///< masters, and their copies in the type of activations
  int64_t moments = 0;       ///< AdamW's two
  int64_t rest = 0;          ///< gradients, as far as they are there when most is in use, and more
  int64_t per_sequence = 0;  ///< activations of each sequence that is computed at once

  /// With so many sequences at once: batch_size / micro_batches of them.
  int64_t with(int64_t sequences) const {
    return weights + moments + rest + sequences * per_sequence;
  }
};

/// Measured by updates of as many sequences at once as are configured and of half as many, on the
/// decoder's device; of two and one where those do not fit. The decoder's weights are others then.
/// An Error of memory where two do not fit.
MemoryNeeds measure_memory_needs(const TrainingConfig& config, Decoder& decoder);

}  // namespace regla
