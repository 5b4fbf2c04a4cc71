#include "analyses/gate_history.h"

#include <algorithm>
#include <cmath>

namespace regla {
namespace {

std::vector<LayerGates> gates_on(const Model& model, const TextSample& sample) {
  return observe_gates(*model.decoder, sample.ids, sample.reset);
}

}  // namespace

TrainingConfig with_gates(TrainingConfig config, Gate gate, double bias) {
  check(std::isfinite(bias), "[analyse] expected a finite bias, got ", bias);
  bool gated = false;
  for (MixerConfig& mixer : config.model.mixer) {
    if (mixer.type == MixerType::Softmax || mixer.gate == Gate::None) continue;
    mixer.gate = gate;
    mixer.gate_bias_init = GateBiasInit::Constant;
    mixer.gate_bias = bias;
    gated = true;
  }
  check(gated, "[analyse] expected a configuration with a gated mixer");
  return config;
}

GateHistory train_gates(const Model& model, const TokenStream& text, const TextSample& sample,
                        const std::function<void(int64_t, int64_t)>& on_step) {
  GateHistory history;
  history.before = gates_on(model, sample);
  Trainer trainer(model.config, *model.decoder, text, model.tokenizer->end_of_text());
  const int64_t steps = model.config.steps, last = std::max<int64_t>(1, steps / 10);
  for (int64_t step = 0; step < steps; ++step) {
    trainer.step();
    const double loss = trainer.finish().front().loss;
    if (step >= steps - last) history.loss += loss / static_cast<double>(last);
    if (on_step) on_step(step + 1, steps);
  }
  trainer.require_finite_weights();
  history.after = gates_on(model, sample);
  return history;
}

GateHistory gates_of_run(const Model& trained, const TextSample& sample) {
  const TrainingConfig& config = trained.config;
  Decoder initial(config.model, config.seed, activation_type(config.precision),
                  trained.decoder->device());
  return {.before = observe_gates(initial, sample.ids, sample.reset),
          .after = gates_on(trained, sample),
          .loss = 0};
}

}  // namespace regla
