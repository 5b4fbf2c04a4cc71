#include "training/objective.h"

namespace regla {

Objective next_token_objective() {
  const auto evaluate = [](Decoder& decoder, const MicroBatch& part) -> Objective::Outcome {
    const Var hidden =
        decoder.hidden(part.tokens.ids, {.reset = part.tokens.reset}, part.state, part.dropout);
    return {decoder.loss(hidden, part.tokens.targets, part.count), {}};
  };
  return {.evaluate = evaluate};
}

}  // namespace regla
