#pragma once

#include <string>
#include <vector>

#include "core/random.h"
#include "text/token_cache.h"
#include "training/configuration.h"
#include "training/trainer.h"

// What the tests of training share.
namespace regla::test {

constexpr int32_t kEnd = 19;

/// A small model of one mixer, or of one for each layer, in double so that rounding hides nothing.
inline TrainingConfig small_config(const std::string& mixer, int64_t layers = 2) {
  TrainingConfig config = from_json(R"({"hidden": 16, "heads": 2, "mlp": 24,
      "sequence_length": 8, "batch_size": 4, "vocab": 20, "dropout": 0.0, "precision": "f64",
      "learning_rate": 0.01, "steps": 100, "mixer": )" +
                                    mixer + R"(, "layers": )" + std::to_string(layers) + "}");
  return config;
}

/// The same with all that a step may have: micro-batches, dropout, a carried state and resets, and
/// a vocabulary that the tokenizer of bytes gives.
inline TrainingConfig full_config(const std::string& mixer, Precision precision,
                                  int64_t layers = 2) {
  TrainingConfig config = small_config(mixer, layers);
  config.precision = precision;
  config.tokenizer = "byte";
  config.model.vocab = 0;
  config.model.dropout = 0.2;
  config.micro_batches = 2;
  config.carry_state = config.reset_at_documents = true;
  return config;
}

/// Ids with a document's end about every 13 tokens.
inline TokenStream small_text(int64_t count, uint64_t seed = 1) {
  std::vector<int32_t> ids;
  const Random random(seed, 5);
  for (int64_t i = 0; i < count; ++i) {
    const auto draw = random.words(static_cast<uint64_t>(i))[0];
    ids.push_back(draw % 13 == 0 ? kEnd : static_cast<int32_t>(draw / 16 % 19));
  }
  return TokenStream(std::move(ids), {.bytes = 5 * count, .words = count, .line_ends = 7});
}

inline const std::vector<std::string>& small_mixers() {
  static const std::vector<std::string> all = {
      R"("regla")", R"({"type": "softmax", "window": 6})",
      R"([{"type": "softmax", "window": 11}, {"gate_axis": "key"}])",
      R"(["performer", {"type": "rfa", "feature_seed": 5}])"};
  return all;
}

/// An update, waited for.
inline StepResult one_step(Trainer& trainer) {
  trainer.step();
  return trainer.finish().back();
}

}  // namespace regla::test
