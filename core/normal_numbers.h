#pragma once

#include <cstdint>

#include "core/random.h"

namespace regla {

/// out[i] = deviation * random.normal(first + i), rounded to float: the same bits, several numbers
/// at a time. A model begins with one of them for every weight.
void write_normal(const Random& random, double deviation, uint64_t first, int64_t count,
                  float* out);
/// The same in double, one by one.
void write_normal(const Random& random, double deviation, uint64_t first, int64_t count,
                  double* out);

}  // namespace regla
