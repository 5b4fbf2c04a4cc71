#include <algorithm>

#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "core/bfloat16.h"

namespace regla::cpu {

namespace {

/// W: the type that the rows are stored in.
template <class T, class W>
void look_up(const Tensor& ids, const Tensor& table, Tensor& y) {
  const int64_t D = table.dim(1);
  const W* rows = table.data<W>();
  const int32_t* id = ids.data<int32_t>();
  T* out = y.data<T>();
  parallel_for(ids.numel(), row_grain(D), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(rows + id[r] * D, D, out + r * D);
  });
}

}  // namespace

void embedding(const Tensor& ids, const Tensor& table, Tensor y) {
  check_range("embedding", "ids", ids, 0, table.dim(0));
  if (table.dtype() == DType::BF16) return look_up<float, BFloat16>(ids, table, y);
  for_float_type(table.dtype(), "embedding",
                 [&](auto tag) { look_up<decltype(tag), decltype(tag)>(ids, table, y); });
}

void embedding_backward(const Tensor& ids, const Tensor& d_y, Sink d_table) {
  for_float_type(d_y.dtype(), "embedding", [&](auto tag) {
    using T = decltype(tag);
    const int64_t D = d_table.tensor.dim(1), count = ids.numel();
    const T* d_out = d_y.data<T>();
    const int32_t* id = ids.data<int32_t>();
    if (!d_table.accumulate) {
      write<T>(d_table, [](int64_t) { return T(0); });
    }
    T* d_rows = d_table.tensor.data<T>();
    // Threads share columns, not tokens: a row hit twice is added in token order.
    parallel_for(D, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < count; ++r) {
        const T* d = d_out + r * D;
        T* row = d_rows + id[r] * D;
        for (int64_t j = begin; j < end; ++j) row[j] += d[j];
      }
    });
  });
}

}  // namespace regla::cpu
