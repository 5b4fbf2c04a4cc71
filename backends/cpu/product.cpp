#include "backends/cpu/product.h"

#include <algorithm>

#include "backends/cpu/few_rows.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/loops.h"
#include "backends/cpu/small_gemm.h"
#include "core/parallel.h"

// What the single-threaded `gemm` is given decides its speed: it packs its operands for every tile,
// a transposed B slowly, and rows a multiple of a page apart share their cache sets. So tiles are
// large, a transposed B is turned once, and long sums with few tiles (gradients of weights and of
// the loss' hidden states) are cut along K instead of into small tiles.
namespace regla::cpu {
namespace {

/// Pieces of work that keep the usual number of cores busy.
constexpr int64_t kPieces = 8;
/// From this many rows on, turning B pays; and sooner where B is not wider than deep, as tiles are
/// narrow then and each would pack the same rows of A.
constexpr int64_t kRowsToTurn = 384, kRowsToTurnNarrow = 64;
/// Elements of B that may be turned: the memory that it takes.
constexpr int64_t kMostTurned = int64_t{16} << 20;

int64_t pieces_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

/// How a product is cut: tiles of the output, and parts of K that are summed in order.
struct Plan {
  int64_t rows, columns, parts;
};

template <class T>
Plan plan(const Product<T>& p) {
  // Found by measuring: a tile that is wide and high enough makes up for packing its operands.
  Plan plan = {512, p.transpose_a ? 512 : 1024, 1};
  const int64_t least_depth = p.transpose_a ? 512 : 2048;
  const auto pieces = [&] {
    return pieces_of(p.M, plan.rows) * pieces_of(p.N, plan.columns) * plan.parts;
  };
  while (pieces() < kPieces) {
    if (p.bias == nullptr && p.K >= 2 * plan.parts * least_depth) {
      plan.parts *= 2;
    } else if (plan.rows > 128) {
      plan.rows /= 2;
    } else if (plan.columns > 128) {
      plan.columns /= 2;
    } else if (plan.columns > 64 || plan.rows > 48) {
      (plan.columns >= plan.rows ? plan.columns : plan.rows) /= 2;
    } else {
      break;
    }
  }
  return plan;
}

/// The tile of `p` that begins at (row, column), summed over [first, last) of K.
template <class T>
Product<T> part_of(const Product<T>& p, const Plan& plan, int64_t row, int64_t column,
                   int64_t first, int64_t last) {
  Product<T> tile = p;
  tile.M = std::min(plan.rows, p.M - row);
  tile.N = std::min(plan.columns, p.N - column);
  tile.K = last - first;
  tile.a += p.transpose_a ? first * p.a_pitch + row : row * p.a_pitch + first;
  tile.b += p.transpose_b ? column * p.b_pitch + first : first * p.b_pitch + column;
  tile.c += row * p.c_pitch + column;
  if (p.bias != nullptr) tile.bias += column;
  return tile;
}

template <class T>
void multiply_tile(const Product<T>& p) {
  bool add = p.accumulate;
  if (p.bias != nullptr) {
    // The bias goes in first and the product is added to it: no second pass.
    for (int64_t r = 0; r < p.M; ++r) {
      write_range(p.c + r * p.c_pitch, p.accumulate, 0, p.N, [&](int64_t j) { return p.bias[j]; });
    }
    add = true;
  }
  gemm(p.transpose_a, p.transpose_b, p.M, p.N, p.K, T(1), p.a, p.a_pitch, p.b, p.b_pitch, T(add),
       p.c, p.c_pitch);
}

template <class T>
void multiply_in_tiles(const Product<T>& p, const Plan& plan) {
  const int64_t across = pieces_of(p.N, plan.columns);
  parallel_for(pieces_of(p.M, plan.rows) * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      multiply_tile(part_of(p, plan, t / across * plan.rows, t % across * plan.columns, 0, p.K));
    }
  });
}

/// Each part of K has an output of its own; they are added in order.
template <class T>
void multiply_in_parts(const Product<T>& p, const Plan& plan) {
  const int64_t across = pieces_of(p.N, plan.columns);
  const int64_t tiles = pieces_of(p.M, plan.rows) * across, depth = pieces_of(p.K, plan.parts);
  Tensor sums = Tensor::empty({plan.parts, p.M, p.N}, dtype_of<T>);
  parallel_for(tiles * plan.parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t part = n / tiles, t = n % tiles;
      Product<T> to_sums = p;
      to_sums.c = sums.data<T>() + part * p.M * p.N;
      to_sums.c_pitch = p.N;
      to_sums.accumulate = false;
      multiply_tile(part_of(to_sums, plan, t / across * plan.rows, t % across * plan.columns,
                            part * depth, std::min(p.K, (part + 1) * depth)));
    }
  });
  parallel_for(p.M, row_grain(p.N * plan.parts), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = sums.data<T>() + r * p.N;
      for (int64_t part = 0; part < plan.parts; ++part) {
        const T* from = row + part * p.M * p.N;
        write_range(p.c + r * p.c_pitch, p.accumulate || part > 0, 0, p.N,
                    [=](int64_t j) { return from[j]; });
      }
    }
  });
}

template <class T>
void multiply_any(Product<T> p) {
  if (has_few_rows(p)) return multiply_few_rows(p);
  Tensor turned;
  const int64_t least_rows = p.N <= p.K ? kRowsToTurnNarrow : kRowsToTurn;
  if (p.transpose_b && p.M >= least_rows && p.N * p.K <= kMostTurned) {
    turned = Tensor::empty({p.K, padded(p.N)}, dtype_of<T>);
    T* out = turned.data<T>();
    parallel_for(p.N, 64, [&](int64_t begin, int64_t end) {
      transpose(end - begin, p.K, p.b + begin * p.b_pitch, p.b_pitch, out + begin, padded(p.N));
    });
    p.transpose_b = false;
    p.b = turned.data<T>();
    p.b_pitch = padded(p.N);
  }
  const Plan cut = plan(p);
  if (cut.parts > 1) {
    multiply_in_parts(p, cut);
  } else {
    multiply_in_tiles(p, cut);
  }
}

}  // namespace

void multiply(const Product<float>& product) { multiply_any(product); }
void multiply(const Product<double>& product) { multiply_any(product); }

}  // namespace regla::cpu
