// Updates of whole decoders.

#include "app/bench/training.h"
#include "models/inspection.h"

namespace regla::app {
namespace {

/// The smallest number of equal parts of a batch above 1; 1 for a single sequence.
int64_t parts_of(int64_t batch) {
  for (int64_t parts = 2; parts <= batch; ++parts) {
    if (batch % parts == 0) return parts;
  }
  return 1;
}

Tensor pair_of(const StepResult& step) {
  return Tensor::of({2}, std::vector<double>{step.loss, step.gradient_norm});
}

/// An update is that of the same batch in parts and in other chunks.
void check_update(const TrainingConfig& config, const Measurements& out) {
  TrainingConfig other = config;
  other.micro_batches = parts_of(config.batch_size);
  for (MixerConfig& mixer : other.model.mixer) mixer.chunk = 8;
  const auto first_update = [&](const TrainingConfig& c) {
    Training training(c, out.device());
    training.trainer.step();
    return pair_of(training.trainer.finish().front());
  };
  out.check_close("an update, whole and in parts", first_update(other), first_update(config));
}

}  // namespace

void bench_train(const BenchOptions& options, Measurements& out) {
  const TrainingConfig config = options.training();
  check_update(config, out);
  Training training(config, options.device());
  const double tokens = options.tokens();
  const double flops = training_flops_per_token(training.decoder, config.model.sequence_length);
  out.time("update", {.tokens = tokens, .flops = tokens * flops}, [&] { training.trainer.step(); });
  training.trainer.finish();
}

}  // namespace regla::app
