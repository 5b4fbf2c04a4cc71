#pragma once

#include <optional>
#include <utility>

#include "tests/temporary_folder.h"
#include "tests/training/support.h"
#include "text/byte_tokenizer.h"
#include "training/checkpoint.h"

namespace regla::test {

/// A training as it goes on in memory, or from where a checkpoint stands.
struct Training {
  Model model;
  TokenStream text = small_text(400);
  Trainer trainer;

  explicit Training(Model made)
      : model(std::move(made)), trainer(model.config, *model.decoder, text, kEnd) {}
  explicit Training(const TrainingConfig& config, Device device = {})
      : Training(make_model(config, byte_tokenizer(), device)) {}
  /// One that was saved, going on.
  explicit Training(const TemporaryFolder& folder, std::optional<Precision> precision = {},
                    Device device = {})
      : Training(load_model(folder.path(), device, precision)) {
    restore_training(folder.path(), trainer, read_training_state(folder.path()));
  }

  /// The loss of the last of some updates.
  double steps(int count) {
    double loss = 0;
    for (int i = 0; i < count; ++i) loss = one_step(trainer).loss;
    return loss;
  }
  void save(const TemporaryFolder& folder) {
    const int64_t step = trainer.steps_done();
    write_training(folder.path(), model, trainer,
                   {.step = step, .tokens = step * trainer.tokens_per_step(), .text = "abc"});
  }
};

}  // namespace regla::test
