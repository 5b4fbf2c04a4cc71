#include <algorithm>

#include "backends/cpu/few_rows.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/narrow.h"
#include "core/check.h"

namespace regla::cpu {
namespace {

/// Elements of B that are widened at a time: 16 MB of floats.
constexpr int64_t kWidened = int64_t{4} << 20;

void widen_rows(int64_t rows, int64_t K, const BFloat16* in, int64_t pitch, float* out) {
  parallel_for(rows, row_grain(K), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      widen(in + r * pitch, K, out + r * K);
    }
  });
}

}  // namespace

void multiply(const Product<float, BFloat16>& p) {
  check(p.transpose_b && !p.transpose_a, "[matmul] weights in BF16 are for inference: A B^T");
  if (has_few_rows(p)) return multiply_few_rows(p);
  // Many rows share each element, so that widening it costs little beside the products.
  const int64_t most = std::clamp<int64_t>(kWidened / std::max<int64_t>(p.K, 1), 1, p.N + 1);
  Tensor widened = Tensor::empty({std::min(most, p.N), p.K}, DType::F32);
  for (int64_t first = 0; first < p.N; first += most) {
    const int64_t rows = std::min(most, p.N - first);
    widen_rows(rows, p.K, p.b + first * p.b_pitch, p.b_pitch, widened.data<float>());
    multiply(Product<float>{.M = p.M,
                            .N = rows,
                            .K = p.K,
                            .transpose_b = true,
                            .a = p.a,
                            .a_pitch = p.a_pitch,
                            .b = widened.data<float>(),
                            .b_pitch = p.K,
                            .bias = p.bias != nullptr ? p.bias + first : nullptr,
                            .c = p.c + first,
                            .c_pitch = p.c_pitch,
                            .accumulate = p.accumulate});
  }
}

}  // namespace regla::cpu
