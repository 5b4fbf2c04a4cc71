#include <algorithm>

#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/loops.h"
#include "core/parallel.h"

namespace regla::cpu {
namespace {

/// The outputs are cut into tiles that depend on the shape alone. A tile is one single-threaded
/// product over the whole of K, so the result has the same bits on any number of threads.
struct Tiling {
  int64_t rows, columns;
};

Tiling tiling(int64_t M, int64_t N) {
  // Large tiles repack less; 16 tiles keep the usual number of cores busy.
  Tiling tile = {256, 512};
  while (((M + tile.rows - 1) / tile.rows) * ((N + tile.columns - 1) / tile.columns) < 16) {
    if (tile.columns >= tile.rows && tile.columns > 64) {
      tile.columns /= 2;
    } else if (tile.rows > 48) {
      tile.rows /= 2;
    } else {
      break;
    }
  }
  return tile;
}

template <class T>
void matmul_tile(const MatmulArgs& args, T* out, int64_t M, int64_t N, int64_t K, int64_t row,
                 int64_t rows, int64_t column, int64_t columns, bool accumulate) {
  const int64_t lda = args.transpose_a ? M : K, ldb = args.transpose_b ? K : N;
  const T* a = args.a.data<T>() + (args.transpose_a ? row : row * K);
  const T* b = args.b.data<T>() + (args.transpose_b ? column * K : column);
  T* c = out + row * N + column;
  bool add = accumulate;
  if (args.bias) {
    // The bias goes in first and the product is added to it: no second pass.
    const T* bias = args.bias.data<T>() + column;
    for (int64_t r = 0; r < rows; ++r)
      write_range(c + r * N, accumulate, 0, columns, [=](int64_t j) { return bias[j]; });
    add = true;
  }
  gemm(args.transpose_a, args.transpose_b, rows, columns, K, T(1), a, lda, b, ldb, T(add), c, N);
}

}  // namespace

void matmul(const MatmulArgs& args, Sink out) {
  const int64_t M = args.a.dim(args.transpose_a ? 1 : 0), K = args.a.dim(args.transpose_a ? 0 : 1);
  const int64_t N = args.b.dim(args.transpose_b ? 0 : 1);
  const Tiling tile = tiling(M, N);
  const int64_t tiles_across = (N + tile.columns - 1) / tile.columns;
  const int64_t tiles = (M + tile.rows - 1) / tile.rows * tiles_across;
  for_float_type(args.a.dtype(), "matmul", [&](auto tag) {
    using T = decltype(tag);
    T* c = out.tensor.data<T>();
    parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = t / tiles_across * tile.rows, column = t % tiles_across * tile.columns;
        matmul_tile(args, c, M, N, K, row, std::min(tile.rows, M - row), column,
                    std::min(tile.columns, N - column), out.accumulate);
      }
    });
  });
}

}  // namespace regla::cpu
