#pragma once

#include <cstdint>

#include "autograd/ops.h"

namespace regla {

/// Draws the dropout masks of one forward pass: one stream per (step, place in the model), numbered
/// along the whole batch, so that a batch in parts gets the masks of the batch in one piece.
class DropoutSource {
 public:
  DropoutSource(uint64_t seed, int64_t step, double rate, int64_t first_row = 0)
      : seed_(seed), step_(step), rate_(rate), first_row_(first_row) {}

  /// Applies the next mask to x [B, T, D].
  Var operator()(const Var& x) { return dropout(x, rate_, next_key(x)); }
  /// Goes past masks that a copy of this draws.
  void skip(int64_t masks) { place_ += masks; }
  /// residual + the same of x.
  Var added(const Var& residual, const Var& x) {
    return add_dropout(residual, x, rate_, next_key(x));
  }

 private:
  DropoutKey next_key(const Var& x);

  uint64_t seed_;
  int64_t step_;
  double rate_;
  int64_t first_row_;
  int64_t place_ = 0;
};

}  // namespace regla
