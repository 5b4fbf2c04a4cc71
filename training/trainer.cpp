#include "training/trainer.h"

#include <cmath>

#include "backends/kernels.h"
#include "models/finite.h"
#include "training/schedule.h"

namespace regla {
namespace {

/// The configuration once it is known to be sound; members are built from it right away.
TrainingConfig validated(const TrainingConfig& config) {
  config.validate();
  return config.resolved();
}

/// The state after a segment, as the constant that the next one starts from.
DecoderState detached(const DecoderState& state) {
  DecoderState copy;
  for (const MixerState& layer : state) copy.push_back(layer.detached());
  return copy;
}

/// Tensors of equal shape but for the first axis, one behind the other.
Tensor stacked(const std::vector<Tensor>& parts) {
  int64_t rows = 0;
  for (const Tensor& part : parts) rows += part.dim(0);
  Tensor all = Tensor::empty(parts[0].shape().with(0, rows), parts[0].dtype(), parts[0].device());
  int64_t row = 0;
  for (const Tensor& part : parts) {
    all.slice(row, row + part.dim(0)).copy_from(part);
    row += part.dim(0);
  }
  return all;
}

}  // namespace

Trainer::Trainer(const TrainingConfig& config, Decoder& decoder, const TokenStream& text,
                 int32_t end_of_text)
    : config_(validated(config)),
      decoder_(decoder),
      text_(text),
      batches_(text_.ids(), config_.batch_size, config_.model.sequence_length, end_of_text),
      optimizer_(decoder.parameters(), config_) {
  decoder_.recompute_blocks(config_.activation_checkpointing);
  if (config_.carry_state) {
    const int64_t rows = config_.batch_size / config_.micro_batches;
    for (int64_t i = 0; i < config_.micro_batches; ++i) {
      carried_.push_back(decoder_.initial_state(rows));
    }
  }
}

StepResult Trainer::step() {
  const Batch batch = batches_.at(steps_done_);
  if (batch.first) {  // what was carried belongs to other text
    for (DecoderState& state : carried_) {
      state = decoder_.initial_state(config_.batch_size / config_.micro_batches);
    }
  }
  const std::vector<DecoderState> before = carried_;
  optimizer_.clear_gradients();
  StepResult result;
  for (int64_t i = 0; i < config_.micro_batches; ++i) {
    result.loss += run_micro_batch(batch, i, false);
    if (!std::isfinite(result.loss)) break;
  }
  result.gradient_norm = optimizer_.gradient_norm();
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    carried_ = before;
    explain(batch, result.loss);
  }
  result.learning_rate = learning_rate_at(config_, steps_done_);
  optimizer_.update(steps_done_ + 1, result.learning_rate,
                    clip_factor(result.gradient_norm, config_.grad_clip));
  ++steps_done_;
  decoder_.begin_step(steps_done_);
  return result;
}

/// Adds the gradient of one part of the batch and returns its share of the loss.
double Trainer::run_micro_batch(const Batch& batch, int64_t index, bool check_finite) {
  const int64_t rows = config_.batch_size / config_.micro_batches;
  const Batch part = batch.rows(index * rows, (index + 1) * rows);
  const Shape shape = {part.batch, part.length};
  Segment segment;
  if (config_.reset_at_documents) segment.reset = Tensor::of(shape, part.reset, decoder_.device());
  DropoutSource dropout(config_.seed, steps_done_, config_.model.dropout, index * rows);
  DecoderState* state = carried_.empty() ? nullptr : &carried_[static_cast<size_t>(index)];
  Tape tape;
  tape.check_finite(check_finite);
  const Var hidden = decoder_.hidden(decoder_.ids(shape, part.inputs), segment, state,
                                     config_.model.dropout > 0 ? &dropout : nullptr);
  const Var loss = decoder_.loss(hidden, decoder_.ids(shape, part.targets), tokens_per_step());
  tape.backward(loss);
  if (state) *state = detached(*state);
  return loss.value.values()[0];
}

/// Runs the batch again with every tensor checked, to say where it went bad.
void Trainer::explain(const Batch& batch, double loss) {
  std::string what = "[train] step " + std::to_string(steps_done_ + 1) + ": ";
  if (!std::isfinite(loss)) {
    what += "the loss is not finite";
  } else {
    const Parameter* bad = nullptr;
    for (const Parameter* parameter : optimizer_.parameters()) {
      const bool finite = parameter->gradient_empty ||
                          kernels(parameter->gradient.device()).all_finite(parameter->gradient);
      if (!finite && !bad) bad = parameter;
    }
    what += bad ? "the gradient of " + bad->name + " is not finite"
                : "the norm of the gradient is not finite";
  }
  try {
    for (int64_t i = 0; i < config_.micro_batches; ++i) {
      optimizer_.clear_gradients();
      run_micro_batch(batch, i, true);
    }
  } catch (const Error& error) {
    what += std::string("; ") + error.what();
  }
  throw DivergedError(what);
}

void Trainer::require_finite_weights() const {
  const Parameter* bad = first_not_finite(optimizer_.parameters());
  if (bad == nullptr) return;
  throw DivergedError("[train] step " + std::to_string(steps_done_) + ": the update made " +
                      bad->name + " infinite or NaN");
}

DecoderState Trainer::carried_state() const {
  if (carried_.empty()) return {};
  DecoderState whole = carried_.front();
  for (size_t layer = 0; layer < whole.size(); ++layer) {
    std::vector<std::vector<Tensor>> parts;  // per tensor, per micro-batch
    for (const DecoderState& state : carried_) {
      size_t index = 0;
      MixerState part = state[layer];
      part.for_each([&](const std::string&, Tensor& tensor) {
        if (parts.size() <= index) parts.emplace_back();
        parts[index++].push_back(tensor);
      });
    }
    size_t index = 0;
    whole[layer].for_each(
        [&](const std::string&, Tensor& tensor) { tensor = stacked(parts[index++]); });
  }
  return whole;
}

int64_t Trainer::tokens_carried(int64_t steps) const {
  // The state begins anew with every epoch, in its first update.
  const int64_t segments = steps > 0 ? (steps - 1) % batches_.segments() + 1 : 0;
  return segments * config_.model.sequence_length;
}

DecoderState Trainer::carried_after(int64_t steps) const {
  if (carried_.empty()) return {};
  return decoder_.state_after(config_.batch_size, tokens_carried(steps));
}

void Trainer::resume(int64_t steps, const DecoderState& carried) {
  decoder_.begin_step(steps);
  steps_done_ = steps;
  const int64_t rows = config_.batch_size / config_.micro_batches;
  for (size_t i = 0; i < carried_.size(); ++i) {
    const int64_t begin = static_cast<int64_t>(i) * rows;
    carried_[i] = carried;
    for (MixerState& layer : carried_[i]) {
      layer.for_each([&](const std::string& name, Tensor& tensor) {
        check(tensor.dim(0) == config_.batch_size, "[train] expected the carried state ", name,
              " of ", config_.batch_size, " sequences, got ", tensor.dim(0));
        tensor = tensor.slice(begin, begin + rows).clone();
      });
    }
  }
}

}  // namespace regla
