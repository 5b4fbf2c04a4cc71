#include "backends/cpu/bfloat16_pack.h"

#include <algorithm>

#include "backends/cpu/small_gemm.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

constexpr int64_t kBlock = kPackedRows * kPackedColumns;
/// Lanes of a vector of BF16, and of pairs.
constexpr int64_t kLanes = kVectorBytes / 2;

/// A block that reaches beyond B, of `rows` x `columns` of it; element (k, n) is b[k * down + n *
/// right].
void pack_edge(int64_t rows, int64_t columns, const BFloat16* b, int64_t down, int64_t right,
               BFloat16* out) {
  std::fill_n(out, kBlock, BFloat16());
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t n = 0; n < columns; ++n) {
      out[(k / 2 * kPackedColumns + n) * 2 + k % 2] = b[k * down + n * right];
    }
  }
}

/// Two rows become pairs.
void pack_rows(const BFloat16* even, const BFloat16* odd, BFloat16* out) {
  using V = VectorOf<uint16_t, kVectorBytes>::type;
  constexpr std::make_integer_sequence<int, kLanes> each{};
  for (int64_t n = 0; n < kPackedColumns; n += kLanes) {
    const V a = load<V>(even + n), b = load<V>(odd + n);
    store(out + 2 * n, interleaved<false>(a, b, each));
    store(out + 2 * n + kLanes, interleaved<true>(a, b, each));
  }
}

/// Columns of pairs become rows of pairs.
void pack_turned(const BFloat16* b, int64_t pitch, BFloat16* out) {
  constexpr int64_t side = kLanes / 2;
  for (int64_t n = 0; n < kPackedColumns; n += side) {
    for (int64_t pair = 0; pair < kPackedRows / 2; pair += side) {
      transpose_square<uint32_t>(b + n * pitch + 2 * pair, pitch,
                                 out + 2 * (pair * kPackedColumns + n), 2 * kPackedColumns);
    }
  }
}

}  // namespace

void pack_pairs(bool transposed, int64_t N, int64_t K, const BFloat16* b, int64_t pitch,
                BFloat16* out) {
  const int64_t down = (K + kPackedRows - 1) / kPackedRows;
  const int64_t across = (N + kPackedColumns - 1) / kPackedColumns;
  const auto pack = [&](int64_t row, int64_t column) {
    BFloat16* block = out + (column * down + row) * kBlock;
    const int64_t k = row * kPackedRows, n = column * kPackedColumns;
    const int64_t rows = std::min(kPackedRows, K - k), columns = std::min(kPackedColumns, N - n);
    const BFloat16* corner = b + (transposed ? n * pitch + k : k * pitch + n);
    if (rows < kPackedRows || columns < kPackedColumns) {
      pack_edge(rows, columns, corner, transposed ? 1 : pitch, transposed ? pitch : 1, block);
    } else if (transposed) {
      pack_turned(corner, pitch, block);
    } else {
      for (int64_t i = 0; i < kPackedRows; i += 2) {
        const BFloat16* even = corner + i * pitch;
        pack_rows(even, even + pitch, block + i * kPackedColumns);
      }
    }
  };
  // Along the rows of B as they are stored.
  if (transposed) {
    parallel_for(across, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * down; i < end * down; ++i) pack(i % down, i / down);
    });
  } else {
    parallel_for(down, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * across; i < end * across; ++i) pack(i / across, i % across);
    });
  }
}

}  // namespace regla::cpu
