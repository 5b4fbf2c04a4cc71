#include "layers/dropout.h"

namespace regla {

DropoutKey DropoutSource::next_key(const Var& x) {
  const int64_t row = x.value.numel() / x.dim(0);
  return {.seed = seed_, .place = place_++, .first = first_row_ * row, .step = step_};
}

}  // namespace regla
