#pragma once

#include "autograd/ops/op.h"

// What the ops that drop share.
namespace regla {

/// How a mask is drawn; of no tensor yet.
inline DropoutArgs dropout_args(double rate, const DropoutKey& key) {
  return {.x = {},
          .residual = {},
          .step = key.step,
          .rate = rate,
          .seed = key.seed,
          .place = key.place,
          .first = key.first};
}

inline void check_dropout(const char* op, double rate, const DropoutKey& key) {
  if (key.step) check_indices(op, "step", key.step, {1});
  check(rate >= 0 && rate < 1, "[", op, "] expected a rate in [0, 1), got ", rate);
}

}  // namespace regla
