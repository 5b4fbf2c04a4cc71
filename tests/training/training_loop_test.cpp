#include "training/training_loop.h"

#include <algorithm>
#include <cmath>

#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"
#include "tests/training/support.h"
#include "text/byte_tokenizer.h"

namespace regla::test {
namespace {

/// What one stretch of a training did.
struct Stretch {
  bool ended = false;
  int64_t validations = 0;
};

/// Trains a run from where it stands; `stop_in_validation` interrupts the first validation.
Stretch train(const std::filesystem::path& path, const TrainingConfig& config,
              bool stop_in_validation) {
  const TokenStream text = small_text(400), valid = small_text(200, 2);
  const bool goes_on = holds_run(path);
  RunFolder run = goes_on ? open_run(path) : create_run(path);
  Model model = goes_on ? load_model(path) : make_model(config, byte_tokenizer());
  Trainer trainer(model.config, *model.decoder, text, kEnd);
  TrainingState state;
  if (goes_on) {
    state = read_training_state(path);
    restore_training(path, trainer, state);
  }
  Stretch stretch;
  bool in_validation = false;
  TrainingEvents events;
  events.on_scoring = [&](int64_t, int64_t) { in_validation = true; };
  events.on_evaluation = [&](const EvalMetrics&) { ++stretch.validations; };
  events.should_stop = [&] { return stop_in_validation && in_validation; };
  stretch.ended = run_training(run, model, trainer, &valid, state, events);
  return stretch;
}

int64_t lines_of(const std::filesystem::path& path) {
  const std::string text = read_file(path / "metrics.jsonl");
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

TEST_CASE("a last validation that was interrupted is done once more, and then known") {
  for (const int64_t eval_every : {0, 3}) {
    const TemporaryFolder folder;
    TrainingConfig config = small_config("\"regla\"");
    config.model.vocab = 384;
    config.tokenizer = "byte";
    config.steps = 3;
    config.log_every = 1;
    config.eval_every = eval_every;
    config.eval_batches = 1;
    CHECK_FALSE(train(folder / "run", config, true).ended);
    CHECK(read_training_state(folder / "run").step == 3);
    CHECK(read_training_state(folder / "run").evaluated_step == -1);
    CHECK(lines_of(folder / "run") == 3);
    const std::string weights = read_file(folder / "run/model.safetensors");

    const Stretch second = train(folder / "run", config, false);
    CHECK(second.ended);
    CHECK(second.validations == 1);
    const TrainingState state = read_training_state(folder / "run");
    CHECK(state.evaluated_step == 3);
    CHECK(state.best_step == 3);
    CHECK(std::isfinite(state.best_loss));
    CHECK(state.best_loss > 0);
    CHECK(open_run(folder / "run").best_step() == 3);
    CHECK(lines_of(folder / "run") == 4);
    CHECK(read_file(folder / "run/model.safetensors") == weights);

    const std::string written = read_file(folder / "run/state.json");
    const Stretch third = train(folder / "run", config, false);
    CHECK(third.ended);
    CHECK(third.validations == 0);
    CHECK(lines_of(folder / "run") == 4);
    CHECK(read_file(folder / "run/state.json") == written);
  }
}

TEST_CASE("a validation that was logged, but is in no checkpoint, is logged once") {
  const TemporaryFolder folder;
  TrainingConfig config = small_config("\"regla\"");
  config.model.vocab = 384;
  config.tokenizer = "byte";
  config.steps = 3;
  config.log_every = 1;
  config.eval_every = 0;
  REQUIRE(train(folder / "run", config, false).ended);
  const std::string log = read_file(folder / "run/metrics.jsonl");
  // As if killed between the line and the state.
  TrainingState state = read_training_state(folder / "run");
  state.evaluated_step = state.best_step = -1;
  write_state(std::filesystem::canonical(folder / "run/latest"), state);
  CHECK(train(folder / "run", config, false).validations == 1);
  const std::string again = read_file(folder / "run/metrics.jsonl");
  CHECK(std::count(again.begin(), again.end(), '\n') == std::count(log.begin(), log.end(), '\n'));
  CHECK(read_training_state(folder / "run").evaluated_step == 3);
}

}  // namespace regla::test
