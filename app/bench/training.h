#pragma once

#include "app/bench/cases.h"
#include "training/trainer.h"

namespace regla::app {

/// A model and its trainer, on random text.
struct Training {
  TrainingConfig config;
  TokenStream text;  // few segments, read again and again: it costs nothing
  Decoder decoder;
  Trainer trainer;

  Training(const TrainingConfig& of, Device device)
      : config(of),
        text(random_ids(4 * of.batch_size * of.model.sequence_length + 1, of.model.vocab), {}),
        decoder(of.model, 0, activation_type(of.precision), device),
        trainer(config, decoder, text, 0) {}
};

}  // namespace regla::app
