#pragma once

#include "core/random.h"
#include "core/tensor.h"

namespace regla {

/// Random directions of a feature map: F rows of N standard normal numbers for each head, [H F, N]
/// F64. `orthogonal`: the rows of a head are orthogonal within groups of N, and as long as
/// independent normal rows would be, so that each is still normal (Yu et al. 2016; FAVOR+,
/// Choromanski et al. 2021, section 2.4).
Tensor random_directions(const Random& random, int64_t H, int64_t F, int64_t N, bool orthogonal);

}  // namespace regla
