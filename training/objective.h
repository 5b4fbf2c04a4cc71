#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "layers/dropout.h"
#include "models/decoder.h"
#include "models/inspection.h"
#include "training/staged_update.h"

namespace regla {

/// A part of a batch, as an objective gets it.
struct MicroBatch {
  BatchTensors tokens;
  DecoderState* state;     // carried: where the part starts from, to move on; null: from nothing
  DropoutSource* dropout;  // null: none
  int64_t count;  // targets of the whole batch: the loss is a sum over this part, over that
};

/// What training minimises. A value, since there are others than predicting the next token: those
/// of distillation.h compare two decoders.
struct Objective {
  struct Outcome {
    Var loss;         // F64 [1], of this part
    Tensors numbers;  // F64 [1] each: its share of what `numbers` names
  };

  std::string name = "loss";              // what the loss is called where it is shown
  std::vector<std::string> numbers = {};  // what else is told of an update
  /// Runs on a tape, the same work for every update: what differs between them is in tensors.
  std::function<Outcome(Decoder&, const MicroBatch&)> evaluate;
  /// Floating-point operations per token of an update with segments of `length` tokens.
  std::function<double(const Decoder&, int64_t length)> flops_per_token = training_flops_per_token;
};

/// The mean cross-entropy of the next token (docs/math.md, "The decoder").
Objective next_token_objective();

}  // namespace regla
