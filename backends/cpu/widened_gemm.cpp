#include "backends/cpu/widened_gemm.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/small_gemm.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// Rows of A that are widened at a time.
constexpr int64_t kRows = 64;

float* scratch(int64_t count) {
  thread_local std::vector<float> buffer;
  if (static_cast<int64_t>(buffer.size()) < count) buffer.resize(static_cast<size_t>(count));
  return buffer.data();
}

/// The rows [first, first + rows) of the product, in F32 memory `c`.
template <class C>
void multiply_rows(const PackedProduct<C>& p, int64_t first, int64_t rows, float* a,
                   bool accumulate, float* c, int64_t c_pitch) {
  const int64_t N = p.b.N, K = p.b.K, size = p.transpose_a ? rows : K;
  const BFloat16* from = p.a + (p.transpose_a ? first : first * p.a_pitch);
  for (int64_t r = 0; r < (p.transpose_a ? K : rows); ++r) {
    widen(from + r * p.a_pitch, size, a + r * size);
  }
  if (p.bias != nullptr) {
    for (int64_t r = 0; r < rows; ++r) {
      write_range(c + r * c_pitch, accumulate, 0, N, [&](int64_t j) { return p.bias[j]; });
    }
  }
  const bool adds = accumulate || p.bias != nullptr;
  gemm(p.transpose_a, false, rows, N, K, 1.0f, a, size, static_cast<const float*>(p.b.data), N,
       adds ? 1.0f : 0.0f, c, c_pitch);
}

template <class C>
void multiply(const PackedProduct<C>& p) {
  const int64_t N = p.b.N, K = p.b.K;
  float* a = scratch(kRows * (K + N));
  for (int64_t first = 0; first < p.M; first += kRows) {
    const int64_t rows = std::min(kRows, p.M - first);
    C* to = p.c + first * p.c_pitch;
    if constexpr (std::is_same_v<C, float>) {
      multiply_rows(p, first, rows, a, p.accumulate, to, p.c_pitch);
    } else {
      float* sums = a + kRows * K;
      multiply_rows(p, first, rows, a, false, sums, N);
      const Output<float> out(to, p.accumulate);
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = sums + r * N;
        out.write(r * p.c_pitch, N, [=](int64_t j) { return row[j]; });
      }
    }
  }
}

}  // namespace

void pack_widened(const PackedB& to, bool transposed, const BFloat16* b, int64_t pitch) {
  auto* out = static_cast<float*>(to.data);
  const int64_t N = to.N, K = to.K;
  if (!transposed) {
    parallel_for(K, row_grain(N), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) widen(b + k * pitch, N, out + k * N);
    });
    return;
  }
  constexpr int64_t kAtOnce = 16;
  parallel_for(N, kAtOnce, [&](int64_t begin, int64_t end) {
    float* wide = scratch(kAtOnce * K);
    for (int64_t n = begin; n < end; ++n) widen(b + n * pitch, K, wide + (n - begin) * K);
    transpose(end - begin, K, wide, K, out + begin, N);
  });
}

void multiply_widened(const PackedProduct<float>& product) { multiply(product); }
void multiply_widened(const PackedProduct<BFloat16>& product) { multiply(product); }

}  // namespace regla::cpu
