#pragma once

#include <cstdint>
#include <vector>

#include "models/decoder.h"

namespace regla {

/// Standard deviations of inner products of queries x and keys y before their feature map, over
/// pairs (Theorem 3.1, Figure 2).
struct ScoreSpread {
  int64_t dimension = 0;      ///< d
  int64_t pairs = 0;          ///< that it was measured over; 0: from a formula
  double query = 1, key = 1;  ///< standard deviation of the elements of x and y
  double identity = 0;        ///< of <x, y>
  double exp = 0;             ///< of <exp x, exp y>
  double safe_exp = 0;        ///< of <exp(x - max x), exp(y - max y)>, what ReGLA computes
};

/// Theorem 3.1 for independent normal elements of the given standard deviations s, t:
///     identity  s t sqrt(d)       exp  sqrt(d (e^(2(s^2+t^2)) - e^(s^2+t^2)))
/// which is e sqrt(d (e^2 - 1)) for s = t = 1. safe_exp is Theorem A.1, where each maximum is
/// replaced by its expected value sqrt(2 ln d) s.
ScoreSpread score_theorem(int64_t d, double query = 1, double key = 1);

/// Measured on `pairs` pairs of vectors of standard normal numbers. The products are taken by the
/// recurrence, q S with S = k 1.
ScoreSpread gaussian_scores(int64_t d, int64_t pairs, uint64_t seed);

/// Measured in each layer of a decoder that shows queries and keys, on ids [B, T] on the CPU: over
/// all heads and all pairs of a query with the keys at or before it. The maximum of safe exp is
/// that of a query's elements, and of a head's keys in the sequence (Eq. 11-12). A score that is
/// not finite is an Error.
std::vector<ScoreSpread> text_scores(Decoder& decoder, const Tensor& ids);

}  // namespace regla
