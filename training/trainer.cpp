#include "training/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backends/kernels.h"
#include "core/memory.h"
#include "models/finite.h"
#include "training/schedule.h"

namespace regla {
namespace {

/// The configuration once it is known to be sound; members are built from it right away.
TrainingConfig validated(const TrainingConfig& config) {
  config.validate();
  check(config.stages.empty(), "[train] expected one stage, got a configuration of several");
  return config.resolved();
}

/// How many updates the host may be ahead of the device, and of what it knows.
constexpr int64_t kAhead = 4, kUntold = 64;

/// Whether random features are drawn anew after so many updates.
bool redraws_at(const ModelConfig& model, int64_t updates) {
  return std::any_of(model.mixer.begin(), model.mixer.end(), [=](const MixerConfig& mixer) {
    return mixer.redraw_every > 0 && updates % mixer.redraw_every == 0;
  });
}

}  // namespace

Trainer::Trainer(const TrainingConfig& config, Decoder& decoder, const TokenStream& text,
                 int32_t end_of_text, Objective objective, Done done)
    : config_(validated(config)),
      decoder_(decoder),
      text_(text),
      batches_(text_.ids(), config_.batch_size, config_.model.sequence_length, end_of_text),
      optimizer_(decoder.parameters(), config_),
      objective_(std::move(objective)),
      done_(done),
      staged_(config_.batch_size, config_.model.sequence_length, config_.reset_at_documents,
              decoder.device()),
      reports_(Tensor::zeros({kUntold, 3 + static_cast<int64_t>(objective_.numbers.size())},
                             DType::F64, decoder.device())),
      steps_done_(done.updates) {
  decoder_.recompute_blocks(config_.activation_checkpointing == ActivationCheckpointing::Blocks);
  carried_ = initial_state();
}

void Trainer::step() {
  if (asked_.size() == static_cast<size_t>(kUntold)) take_oldest();
  if (asked_.size() >= static_cast<size_t>(kAhead)) {
    memory(decoder_.device()).wait_for(asked_[asked_.size() - kAhead].mark);
  }
  stage(steps_done_);
  if (!update_) update_.emplace(decoder_.device(), [this] { update(); });
  update_->run();
  asked_.push_back({.step = steps_done_,
                    .learning_rate = rate_after(steps_done_),
                    .mark = memory(decoder_.device()).set_mark()});
  ++steps_done_;
  if (!redraws_at(config_.model, steps_done_)) return;
  while (!asked_.empty()) take_oldest();  // they are explained with the features they had
  decoder_.begin_step(steps_done_);
}

StepResults Trainer::finish() {
  while (!asked_.empty()) take_oldest();
  return std::exchange(results_, {});
}

StepResults Trainer::arrived() {
  Memory& there = memory(decoder_.device());
  while (!asked_.empty() && there.has_passed(asked_.front().mark)) take_oldest();
  return std::exchange(results_, {});
}

double Trainer::rate_after(int64_t steps) const {
  return learning_rate_at(config_, steps - done_.updates);
}

void Trainer::stage(int64_t step) {
  const Batch batch = batches_.at(batch_after(step));
  decoder_.check_ids(batch.inputs);
  decoder_.check_ids(batch.targets);
  staged_.write(batch, {.step = step,
                        .report_row = step % kUntold,
                        .rates = optimizer_.rates(step + 1 - done_.updates, rate_after(step))});
}

/// What is the same in every update: the work of the routine.
void Trainer::update() {
  const KernelTable& on = kernels(decoder_.device());
  optimizer_.clear_gradients();
  // What was carried into an epoch belongs to other text; behind a bad update nothing begins.
  on.restart(optimizer_.has_stopped(), 0, staged_.begins_epoch());
  carried_.restart(staged_.begins_epoch());
  std::vector<DecoderState> after;  // of the rows of each micro-batch
  const auto empty = [&](int64_t size) {
    return Tensor::empty({size}, DType::F64, decoder_.device());
  };
  Tensors shares;  // of the micro-batches in the loss, then in each number
  while (shares.size() <= objective_.numbers.size()) shares.push_back(empty(config_.micro_batches));
  for (int64_t i = 0; i < config_.micro_batches; ++i) {
    after.push_back(carried_rows(i));
    Objective::Outcome outcome = run_micro_batch(i, after.back(), false);
    outcome.numbers.insert(outcome.numbers.begin(), outcome.loss.value);
    for (size_t n = 0; n < shares.size(); ++n) {
      shares[n].slice(i, i + 1).copy_from(outcome.numbers.at(n));
    }
  }
  const Tensor report = empty(reports_.dim(1));
  optimizer_.clip(shares[0], config_.grad_clip, report.slice(0, 3));
  for (size_t n = 1; n < shares.size(); ++n) {
    const auto place = static_cast<int64_t>(n) + 2;
    on.sum(shares[n], 1, report.slice(place, place + 1));
  }
  const Tensor factor = report.slice(2, 3);
  optimizer_.update(staged_.rates(), factor);
  // Until here backward and a repeated forward pass needed the old state.
  for (int64_t i = 0; i < config_.micro_batches; ++i) {
    carried_rows(i).commit(factor, after[static_cast<size_t>(i)]);
  }
  on.put_row(staged_.report_row(), report, reports_);
}

/// The carried state of a micro-batch, sharing memory.
DecoderState Trainer::carried_rows(int64_t index) const {
  const int64_t rows = config_.batch_size / config_.micro_batches;
  return carried_.rows(index * rows, (index + 1) * rows);
}

/// Adds the gradient of one part of the staged batch and returns what the objective gave. `state`,
/// that of its rows, moves on.
Objective::Outcome Trainer::run_micro_batch(int64_t index, DecoderState& state, bool check_finite) {
  const int64_t rows = config_.batch_size / config_.micro_batches;
  DropoutSource dropout(config_.seed, staged_.step(), config_.model.dropout, index * rows);
  Tape tape;
  tape.check_finite(check_finite);
  tape.keep_cheap(config_.activation_checkpointing == ActivationCheckpointing::None);
  Objective::Outcome outcome = objective_.evaluate(
      decoder_, {.tokens = staged_.tokens().rows(index * rows, (index + 1) * rows),
                 .state = state.empty() ? nullptr : &state,
                 .dropout = config_.model.dropout > 0 ? &dropout : nullptr,
                 .count = tokens_per_step()});
  tape.backward(outcome.loss);
  state = state.detached();
  return outcome;
}

/// Learns what the update did that was asked for longest ago.
void Trainer::take_oldest() {
  const Asked oldest = asked_.front();
  const int64_t row = oldest.step % kUntold;
  const std::vector<double> report = reports_.slice(row, row + 1).values_at(oldest.mark);
  if (report[2] == 0) explain(oldest, report[0]);
  asked_.pop_front();
  results_.push_back({.step = oldest.step + 1,
                      .loss = report[0],
                      .gradient_norm = report[1],
                      .learning_rate = oldest.learning_rate,
                      .numbers = {report.begin() + 3, report.end()}});
}

/// Does an update that went bad once more, with every tensor checked, to say where. It and all that
/// were asked for since left weights, moments and state as they were.
void Trainer::explain(const Asked& asked, double loss) {
  memory(decoder_.device()).wait();
  asked_.clear();
  update_.reset();
  optimizer_.forget_bad_updates();
  steps_done_ = asked.step;
  stage(asked.step);
  std::string what = "[train] step " + std::to_string(asked.step + 1) + ": ";
  carried_.restart(staged_.begins_epoch());
  const auto run_again = [&](bool check_finite) {
    for (int64_t i = 0; i < config_.micro_batches; ++i) {
      if (i == 0 || check_finite) optimizer_.clear_gradients();  // each part is looked at alone
      DecoderState state = carried_rows(i);
      run_micro_batch(i, state, check_finite);
    }
  };
  if (!std::isfinite(loss)) {
    what += "the loss is not finite";
  } else {
    run_again(false);
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
    run_again(true);
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
  // The state begins anew with every epoch, in its first update, and with this trainer.
  const int64_t own = steps - done_.updates;
  const int64_t of_epoch = own > 0 ? batch_after(steps - 1) % batches_.segments() + 1 : 0;
  const int64_t segments = std::min(own, of_epoch);
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
