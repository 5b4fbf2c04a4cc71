#pragma once

#include <string>
#include <vector>

#include "tests/support.h"
#include "text/token_cache.h"
#include "training/configuration.h"

// What the tests of analyses share.
namespace regla::test {

/// A model and a training of it that take a moment.
inline TrainingConfig tiny_config(int64_t layers, int64_t steps) {
  TrainingConfig config;
  config.steps = steps;
  config.batch_size = 2;
  config.learning_rate = 0.01;
  config.tokenizer = "byte";
  config.model.layers = layers;
  config.model.hidden = 16;
  config.model.heads = 2;
  config.model.sequence_length = 8;
  return config;
}

inline TokenStream some_tokens(int64_t count) {
  const Tensor ids = random_ids({count}, 1, 257);
  const int32_t* first = ids.data<int32_t>();
  return {std::vector<int32_t>(first, first + count), TextCounts{}};
}

}  // namespace regla::test
