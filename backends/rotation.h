#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace regla {

/// Turns feature pairs (i, i + rotary/2) of a token by position * base^(-2i/rotary), half-split
/// (RoPE). Nothing turns where there are no positions or `rotary` is 0.
struct Rotation {
  Tensor positions;    // [B, T] I32
  int64_t rotary = 0;  // leading features that turn, even
  double base = 10000;

  bool turns() const { return positions.defined() && rotary > 0; }
};

}  // namespace regla
