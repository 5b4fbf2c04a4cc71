#include "layers/dropout.h"

namespace regla {

DropoutKey DropoutSource::next_key(const Var& x) {
  constexpr int64_t kPlaces = 1 << 16;
  const int64_t row = x.value.numel() / x.dim(0);
  return {.seed = seed_,
          .stream = static_cast<uint64_t>(step_ * kPlaces + place_++),
          .first = first_row_ * row};
}

}  // namespace regla
