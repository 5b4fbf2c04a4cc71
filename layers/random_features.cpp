#include "layers/random_features.h"

#include <cmath>
#include <numeric>

namespace regla {
namespace {

double length(const double* row, int64_t N) {
  return std::sqrt(std::inner_product(row, row + N, row, 0.0));
}

/// Takes from row `f` its part along the rows [first, f), which have length 1, and makes it 1 long.
/// Twice, because once leaves rounding errors along them.
void orthonormalise(double* rows, int64_t first, int64_t f, int64_t N) {
  double* row = rows + f * N;
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t other = first; other < f; ++other) {
      const double* unit = rows + other * N;
      const double along = std::inner_product(row, row + N, unit, 0.0);
      for (int64_t n = 0; n < N; ++n) row[n] -= along * unit[n];
    }
  }
  const double norm = length(row, N);
  for (int64_t n = 0; n < N; ++n) row[n] /= norm;
}

}  // namespace

Tensor random_directions(const Random& random, int64_t H, int64_t F, int64_t N, bool orthogonal) {
  Tensor result = Tensor::empty({H * F, N}, DType::F64);
  uint64_t next = 0;
  const auto draw = [&](double* row) {
    for (int64_t n = 0; n < N; ++n) row[n] = random.normal(next++);
  };
  Tensor spare = Tensor::empty({N}, DType::F64);
  for (int64_t h = 0; h < H; ++h) {
    double* rows = result.data<double>() + h * F * N;
    for (int64_t f = 0; f < F; ++f) {
      draw(rows + f * N);
      if (orthogonal) orthonormalise(rows, f - f % N, f, N);
    }
    for (int64_t f = 0; orthogonal && f < F; ++f) {
      draw(spare.data<double>());
      const double norm = length(spare.data<double>(), N);
      for (int64_t n = 0; n < N; ++n) rows[f * N + n] *= norm;
    }
  }
  return result;
}

}  // namespace regla
