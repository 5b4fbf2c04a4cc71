#pragma once

#include <functional>
#include <vector>

#include "analyses/gate_analysis.h"
#include "training/checkpoint.h"
#include "training/text_sample.h"
#include "training/trainer.h"

namespace regla {

/// What training made of a model's gates (Figure 4).
struct GateHistory {
  std::vector<LayerGates> before, after;
  double loss = 0;  ///< nats per token, mean over the last tenth of the updates; 0: not known
};

/// The configuration with every gated mixer's gate of this kind and its biases started at this
/// constant; the refining gate starts at `refine_bias` as configured. Errors: no mixer is gated,
/// a bias that is not finite.
TrainingConfig with_gates(TrainingConfig config, Gate gate, double bias);

/// Trains a model as configured, without checkpoints, and looks at its gates on `sample` before and
/// after. `on_step(done, steps)` may be empty.
GateHistory train_gates(const Model& model, const TokenStream& text, const TextSample& sample,
                        const std::function<void(int64_t, int64_t)>& on_step = {});

/// The same for a model that was trained before: its initial weights follow from its seed.
GateHistory gates_of_run(const Model& trained, const TextSample& sample);

}  // namespace regla
