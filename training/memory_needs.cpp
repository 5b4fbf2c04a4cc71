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
  config.stages.clear();
  const int64_t tokens = 2 * config.batch_size * config.model.sequence_length + 1;
  const TokenStream text(std::vector<int32_t>(static_cast<size_t>(tokens), 0), {});
  for (Parameter* parameter : decoder.parameters()) parameter->clear_gradient();
  Memory& there = memory(decoder.device());
  const int64_t before = there.stats().bytes_in_use;
  there.reset_peak();
  Trainer trainer(config, decoder, text, 0);
  trainer.step();
  trainer.finish();
  return there.stats().peak_bytes_in_use - before;
}

/// Peaks of updates of `n` sequences at once and of half as many.
MemoryNeeds measured(const TrainingConfig& config, Decoder& decoder, int64_t n) {
  MemoryNeeds needs;
  for (const Parameter* parameter : decoder.parameters()) {
    const int64_t bytes = parameter->value.bytes();
    needs.weights += bytes + (parameter->copy ? parameter->copy.bytes() : 0);
    needs.moments += 2 * bytes;
  }
  const int64_t whole = peak_of_update(config, decoder, n);
  const int64_t half = peak_of_update(config, decoder, n / 2);
  needs.per_sequence = (whole - half) / (n - n / 2);
  needs.rest = whole - n * needs.per_sequence - needs.moments;
  return needs;
}

}  // namespace

MemoryNeeds measure_memory_needs(const TrainingConfig& config, Decoder& decoder) {
  const int64_t at_once = config.batch_size / config.micro_batches;
  try {
    return measured(config, decoder, std::max<int64_t>(at_once, 2));
  } catch (const MemoryError&) {
    return measured(config, decoder, 2);
  }
}

}  // namespace regla
