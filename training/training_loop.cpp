#include "training/training_loop.h"

#include <chrono>
#include <cmath>
#include <string>

namespace regla {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What happened since the last line of metrics.
struct Interval {
  int64_t steps = 0;
  double loss = 0;                   // sum
  std::vector<double> numbers = {};  // sums
  double seconds = 0;
};

class TrainingLoop {
 public:
  TrainingLoop(RunFolder& run, const Model& model, Trainer& trainer, const TokenStream* valid,
               TrainingState& state, const TrainingEvents& events)
      : run_(run),
        model_(model),
        config_(model.config),
        trainer_(trainer),
        valid_(valid),
        state_(state),
        events_(events),
        log_(run.metrics_path(), trainer.steps_done() > 0 ? trainer.steps_done() : -1,
             state_.evaluated_step),
        flops_per_token_(trainer.flops_per_token()) {}

  bool operator()() {
    try {
      return train();
    } catch (const DivergedError& error) {
      throw DivergedError(error.what() + advice());
    }
  }

 private:
  bool train() {
    while (true) {
      const int64_t step = trainer_.steps_done();
      const bool is_last = step >= trainer_.last_step(), stops = stopped();
      const bool is_due = config_.checkpoint_every > 0 && step % config_.checkpoint_every == 0;
      const bool is_validated = !stops && is_validation_left(step, is_last);
      if (is_last || is_due || is_validated || stops) {
        tell([&] { return trainer_.finish(); });  // what follows is about these weights
      }
      const bool is_best = is_validated && validate(step, is_last);
      if (step == 0 || is_due || is_best || is_last || stopped_) save(is_best);
      if (stopped_) return false;
      if (is_last) return true;
      update();
    }
  }

  /// Where to go back to: what was saved shortly before is finite but may be useless.
  std::string advice() const {
    const auto latest = run_.latest_step(), best = run_.best_step();
    if (!latest) return "";
    std::string text = "; the last checkpoint, " + std::to_string(*latest) +
                       ", may come from weights that were on their way there";
    if (best) text += ", the best by validation is " + std::to_string(*best);
    return text;
  }

  bool stopped() {
    stopped_ = stopped_ || (events_.should_stop && events_.should_stop());
    return stopped_;
  }

  void update() {
    const int64_t step = trainer_.steps_done() + 1;
    tell([&] {
      trainer_.step();
      return is_logged(step) ? trainer_.finish() : trainer_.arrived();
    });
  }

  bool is_logged(int64_t step) const {
    return step % config_.log_every == 0 || step == trainer_.last_step();
  }

  /// Tells of the updates that `ask` comes to know of. The time it takes is that of training.
  template <class Ask>
  void tell(const Ask& ask) {
    const Clock::time_point start = Clock::now();
    const StepResults results = ask();
    const double seconds = seconds_since(start);
    state_.elapsed_s += seconds;
    seconds_ += seconds;
    interval_.seconds += seconds;
    for (const StepResult& result : results) report(result);
  }

  void report(const StepResult& result) {
    state_.step = result.step;
    state_.tokens += trainer_.tokens_per_step();
    ++updates_;
    interval_.steps += 1;
    interval_.loss += result.loss;
    interval_.numbers.resize(result.numbers.size());
    for (size_t i = 0; i < result.numbers.size(); ++i) interval_.numbers[i] += result.numbers[i];
    const double steps = static_cast<double>(interval_.steps);
    const double tokens_per_s =
        steps * static_cast<double>(trainer_.tokens_per_step()) / interval_.seconds;
    const double gflops = tokens_per_s * flops_per_token_ / 1e9;
    if (events_.on_step) {
      const double left = static_cast<double>(config_.steps - state_.step);
      events_.on_step({.step = state_.step,
                       .steps = config_.steps,
                       .loss = interval_.loss / steps,
                       .tokens_per_s = tokens_per_s,
                       .gflops = gflops,
                       .seconds_left = left * seconds_ / static_cast<double>(updates_),
                       .loss_name = trainer_.objective().name},
                      is_logged(state_.step));
    }
    if (!is_logged(state_.step)) return;
    StepMetrics metrics = {.step = state_.step,
                           .tokens = state_.tokens,
                           .loss = interval_.loss / steps,
                           .lr = result.learning_rate,
                           .grad_norm = result.gradient_norm,
                           .tokens_per_s = tokens_per_s,
                           .gflops = gflops,
                           .elapsed_s = state_.elapsed_s};
    const Objective& objective = trainer_.objective();
    if (objective.name != next_token_objective().name) metrics.objective = objective.name;
    for (size_t i = 0; i < objective.numbers.size(); ++i) {
      metrics.numbers.emplace_back(objective.numbers[i], interval_.numbers[i] / steps);
    }
    log_.append(metrics);
    interval_ = {};
  }

  bool is_validation_due(int64_t step) const {
    return config_.eval_every > 0 && step % config_.eval_every == 0;
  }

  /// Whether a validation is due and was not done before an interruption.
  bool is_validation_left(int64_t step, bool is_last) const {
    return valid_ && step > 0 && (is_validation_due(step) || is_last) &&
           state_.evaluated_step != step;
  }

  /// Returns whether this is the best so far.
  bool validate(int64_t step, bool is_last) {
    const bool is_due = is_validation_due(step);
    const bool is_partial = config_.eval_batches > 0;
    Evaluation compared, reported;
    if (is_due || !is_partial) compared = evaluate_on(config_.eval_batches);
    reported = is_last && is_partial && !stopped_ ? evaluate_on(0) : compared;
    if (stopped_) return false;
    state_.evaluated_step = step;
    is_state_new_ = true;
    record(reported);
    if (compared.tokens == 0) compared = reported;  // eval_every = 0: there is only this one
    const bool is_best = state_.best_step < 0 || compared.loss() < state_.best_loss;
    if (!is_best || !std::isfinite(compared.loss())) return false;
    state_.best_step = step;
    state_.best_loss = compared.loss();
    return true;
  }

  Evaluation evaluate_on(int64_t batches) {
    EvaluationOptions options = config_.evaluation();
    options.max_batches = batches;
    return evaluate(*model_.decoder, *valid_, model_.tokenizer->end_of_text(), options,
                    [this](int64_t done, int64_t total) {
                      if (events_.on_scoring) events_.on_scoring(done, total);
                      return !stopped();
                    });
  }

  void record(const Evaluation& result) {
    const EvalMetrics metrics = {.step = state_.step,
                                 .tokens = state_.tokens,
                                 .elapsed_s = state_.elapsed_s,
                                 .split = "valid",
                                 .loss = result.loss(),
                                 .ppl = result.perplexity(),
                                 .word_ppl = result.word_perplexity(),
                                 .bits_per_byte = result.bits_per_byte()};
    log_.append(metrics);
    if (events_.on_evaluation) events_.on_evaluation(metrics);
  }

  void save(bool is_best) {
    const bool is_there = run_.latest_step() == state_.step;
    if (is_there && !is_state_new_) return;
    if (!is_there) trainer_.require_finite_weights();
    save_checkpoint(
        run_, state_.step,
        [this](const std::filesystem::path& folder) {
          write_training(folder, model_, trainer_, state_);
        },
        is_best, config_.keep_last);
    // Of a checkpoint that was there already only the validation is new. It comes last: until
    // then the validation counts as not done, and is done again.
    if (is_there) write_state(checkpoint_of(run_.path()), state_);
    is_state_new_ = false;
  }

  RunFolder& run_;
  const Model& model_;
  const TrainingConfig& config_;
  Trainer& trainer_;
  const TokenStream* valid_;
  TrainingState& state_;
  const TrainingEvents& events_;
  MetricsLog log_;
  double flops_per_token_;
  Interval interval_;
  double seconds_ = 0;   // of the updates made here
  int64_t updates_ = 0;  // made here
  bool stopped_ = false;
  bool is_state_new_ = false;  // a validation that no checkpoint knows of
};

}  // namespace

bool run_training(RunFolder& run, const Model& model, Trainer& trainer, const TokenStream* valid,
                  TrainingState& state, const TrainingEvents& events) {
  return TrainingLoop(run, model, trainer, valid, state, events)();
}

}  // namespace regla
