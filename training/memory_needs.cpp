#include "training/memory_needs.h"

#include <algorithm>

#include "core/memory.h"
#include "training/trainer.h"

namespace regla {
namespace {

/// The most memory in use during an update of so many sequences at once, on top of what was before.
/// Of several micro-batches the second holds most: the gradients of the first are there.
int64_t peak_of_update(TrainingConfig config, Decoder& decoder, int64_t sequences) {
  config.micro_batches = std::min<int64_t>(config.micro_batches, 2);
  config.batch_size = sequences * config.micro_batches;
  const int64_t tokens = 2 * config.batch_size * config.model.sequence_length + 1;
  const TokenStream text(std::vector<int32_t>(static_cast<size_t>(tokens), 0), {});
  Memory& there = memory(decoder.device());
  const int64_t before = there.stats().bytes_in_use;
  there.reset_peak();
  Trainer trainer(config, decoder, text, 0);
  trainer.step();
  trainer.finish();
  return there.stats().peak_bytes_in_use - before;
}

}  // namespace

MemoryNeeds measure_memory_needs(const TrainingConfig& config, Decoder& decoder) {
  MemoryNeeds needs;
  for (const Parameter* parameter : decoder.parameters()) {
    const int64_t bytes = parameter->value.bytes();
    needs.weights += bytes + (parameter->copy ? parameter->copy.bytes() : 0);
    needs.gradients += bytes;
    needs.moments += 2 * bytes;
  }
  for (Parameter* parameter : decoder.parameters()) parameter->clear_gradient();
  const int64_t one = peak_of_update(config, decoder, 1);
  for (Parameter* parameter : decoder.parameters()) parameter->clear_gradient();
  const int64_t two = peak_of_update(config, decoder, 2);
  needs.per_sequence = two - one;
  needs.other = one - needs.per_sequence - needs.gradients - needs.moments;
  return needs;
}

}  // namespace regla
