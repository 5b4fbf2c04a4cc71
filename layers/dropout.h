#pragma once

#include <cstdint>
#include <utility>

#include "layers/linear.h"

namespace regla {

/// Draws the dropout masks of one forward pass: one stream per (step, place in the model), numbered
/// along the whole batch, so that a batch in parts gets the masks of the batch in one piece.
class DropoutSource {
 public:
  /// Drops nothing.
  DropoutSource() = default;
  /// `step` [1] I32: the number of the update.
  DropoutSource(uint64_t seed, Tensor step, double rate, int64_t first_row = 0)
      : seed_(seed), step_(std::move(step)), rate_(rate), first_row_(first_row) {}

  /// Applies the next mask to x [B, T, D].
  Var operator()(const Var& x) { return dropout(x, rate_, next_key(x)); }
  /// Goes past masks that a copy of this draws.
  void skip(uint64_t masks) { place_ += masks; }
  /// residual + the same of x.
  Var added(const Var& residual, const Var& x) {
    return add_dropout(residual, x, rate_, next_key(x));
  }
  /// The same with its norm, of the type of x.
  SumAndNorm added_and_normed(const Var& residual, const Var& x, LayerNorm& norm) {
    return dropout_norm(residual, x, rate_, next_key(x), use(norm.weight), use(norm.bias),
                        norm.epsilon);
  }

 private:
  DropoutKey next_key(const Var& x);

  uint64_t seed_ = 0;
  Tensor step_;
  double rate_ = 0;
  int64_t first_row_ = 0;
  uint64_t place_ = 0;
};

}  // namespace regla
