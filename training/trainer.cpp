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

}  // namespace

BatchTensors BatchTensors::rows(int64_t begin, int64_t end) const {
  return {ids.slice(begin, end), targets.slice(begin, end),
          reset ? reset.slice(begin, end) : Tensor{}};
}

Trainer::Trainer(const TrainingConfig& config, Decoder& decoder, const TokenStream& text,
                 int32_t end_of_text)
    : config_(validated(config)),
      decoder_(decoder),
      text_(text),
      batches_(text_.ids(), config_.batch_size, config_.model.sequence_length, end_of_text),
      optimizer_(decoder.parameters(), config_) {
  decoder_.recompute_blocks(config_.activation_checkpointing);
  carried_ = initial_state();
}

StepResult Trainer::step() {
  const Batch text = batches_.at(steps_done_);
  const BatchTensors batch = tensors_of(text);
  // What was carried into a new epoch belongs to other text.
  const DecoderState before = text.first ? initial_state() : carried_;
  std::vector<DecoderState> after;  // of the rows of each micro-batch
  optimizer_.clear_gradients();
  const Tensor losses = Tensor::empty({config_.micro_batches}, DType::F64, optimizer_.device());
  for (int64_t i = 0; i < config_.micro_batches; ++i) {
    after.push_back(rows_of(before, i));
    losses.slice(i, i + 1).copy_from(run_micro_batch(batch, i, after.back(), false));
  }
  const Tensor report = optimizer_.clip(losses, config_.grad_clip);
  StepResult result = {.learning_rate = learning_rate_at(config_, steps_done_)};
  optimizer_.update(steps_done_ + 1, result.learning_rate, report.slice(2, 3));
  const std::vector<double> numbers = report.values();
  result.loss = numbers[0];
  result.gradient_norm = numbers[1];
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    optimizer_.forget_bad_updates();
    explain(batch, before, result.loss);
  }
  commit(after);
  ++steps_done_;
  decoder_.begin_step(steps_done_);
  return result;
}

BatchTensors Trainer::tensors_of(const Batch& batch) const {
  const Shape shape = {batch.batch, batch.length};
  return {
      decoder_.ids(shape, batch.inputs), decoder_.ids(shape, batch.targets),
      config_.reset_at_documents ? Tensor::of(shape, batch.reset, decoder_.device()) : Tensor{}};
}

DecoderState Trainer::rows_of(const DecoderState& state, int64_t index) const {
  const int64_t rows = config_.batch_size / config_.micro_batches;
  return state.rows(index * rows, (index + 1) * rows);
}

/// Adds the gradient of one part of the batch and returns its share of the loss, F64 [1]. `state`,
/// that of its rows, moves on.
Tensor Trainer::run_micro_batch(const BatchTensors& batch, int64_t index, DecoderState& state,
                                bool check_finite) {
  const int64_t rows = config_.batch_size / config_.micro_batches;
  const BatchTensors part = batch.rows(index * rows, (index + 1) * rows);
  const Tensor step =
      Tensor::full({1}, static_cast<double>(steps_done_), DType::I32, optimizer_.device());
  DropoutSource dropout(config_.seed, step, config_.model.dropout, index * rows);
  Tape tape;
  tape.check_finite(check_finite);
  const Var hidden =
      decoder_.hidden(part.ids, {.reset = part.reset}, state.empty() ? nullptr : &state,
                      config_.model.dropout > 0 ? &dropout : nullptr);
  const Var loss = decoder_.loss(hidden, part.targets, tokens_per_step());
  tape.backward(loss);
  state = state.detached();
  return loss.value;
}

/// Carries what the micro-batches of an update left behind.
void Trainer::commit(const std::vector<DecoderState>& after) {
  for (size_t i = 0; i < after.size(); ++i) {
    rows_of(carried_, static_cast<int64_t>(i)).copy_from(after[i]);
  }
}

/// Runs the batch again with every tensor checked, to say where it went bad.
void Trainer::explain(const BatchTensors& batch, const DecoderState& before, double loss) {
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
      DecoderState state = rows_of(before, i);
      run_micro_batch(batch, i, state, true);
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

int64_t Trainer::tokens_carried(int64_t steps) const {
  // The state begins anew with every epoch, in its first update.
  const int64_t segments = steps > 0 ? (steps - 1) % batches_.segments() + 1 : 0;
  return segments * config_.model.sequence_length;
}

DecoderState Trainer::initial_state() const {
  return config_.carry_state ? decoder_.initial_carried_state(config_.batch_size) : DecoderState{};
}

void Trainer::resume(int64_t steps, const DecoderState& carried) {
  if (!carried_.empty()) carried_.copy_from(carried);
  decoder_.begin_step(steps);
  steps_done_ = steps;
}

}  // namespace regla
