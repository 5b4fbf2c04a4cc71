#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cuda/elements.cuh"
#include "backends/cuda/loops.cuh"

// Sums over the rows of a matrix, in an order that depends on its size alone: blocks of rows by
// themselves, then their sums.
namespace regla::cuda {

/// Where rows go that may lie beside others (RowsSink).
template <class S>
class RowsResult {
 public:
  explicit RowsResult(const RowsSink& sink)
      : matrix_(sink.matrix), pitch_(sink ? sink.matrix.tensor.dim(1) : 0), first_(sink.first) {}

  __device__ explicit operator bool() const { return static_cast<bool>(matrix_); }

  /// Columns [c, c + W) of row r become v, or grow by it.
  template <int W>
  __device__ void put(int64_t r, int64_t c, const S (&v)[W]) const {
    matrix_.put(first_ + r * pitch_ + c, v);
  }

 private:
  Result<S> matrix_;
  int64_t pitch_, first_;
};

/// Whether nothing asks for more than the elements of the gradient, one after the other.
inline bool is_plain(const LinearSink& sink, int64_t columns) {
  return !sink.sums && (!sink || sink.rows.matrix.tensor.dim(1) == columns);
}

constexpr int kColumnLanes = 32, kRowLanes = 8;

/// Rows that a thread asks for before it adds up the first, and blocks that a multiprocessor has at
/// least: as f says, or for an f that computes little.
template <class F>
struct RowsAtOnce {
  static constexpr int kTogether = 4, kBlocks = 1;
};
template <class F>
requires requires { F::kTogether; }
struct RowsAtOnce<F> {
  static constexpr int kTogether = F::kTogether, kBlocks = F::kBlocks;
};

/// partial[block, m, c] = the sum over the block's rows of the M numbers that f adds to `total`. A
/// thread asks for what several rows have before it adds up the first, where f may write.
template <int W, int M, class S, class F>
__global__ __launch_bounds__(kColumnLanes* kRowLanes, RowsAtOnce<F>::kBlocks) void sum_row_blocks(
    int64_t rows, int64_t columns, int64_t block_rows, F f, S* partial) {
  __shared__ S shared[kRowLanes][M][kColumnLanes * W];
  const int64_t c = (int64_t{blockIdx.x} * kColumnLanes + threadIdx.x) * W;
  const int64_t begin = blockIdx.y * block_rows;
  const int64_t end = begin + block_rows < rows ? begin + block_rows : rows;
  S total[M][W] = {};
  if (c < columns) {
    constexpr int kTogether = RowsAtOnce<F>::kTogether;
    const auto place = f.place(c);
    for (int64_t first = begin + threadIdx.y; first < end; first += kTogether * kRowLanes) {
      typename F::Fetched fetched[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (first + i * kRowLanes < end) fetched[i] = f.fetch(first + i * kRowLanes, place);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (first + i * kRowLanes < end) f.add(first + i * kRowLanes, place, fetched[i], total);
      }
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int w = 0; w < W; ++w) shared[threadIdx.y][m][threadIdx.x * W + w] = total[m][w];
  }
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  for (int m = 0; m < M; ++m) {
    for (int w = 0; w < W; ++w) {
      S sum = 0;
      for (int y = 0; y < kRowLanes; ++y) sum += shared[y][m][threadIdx.x * W + w];
      partial[(int64_t{blockIdx.y} * M + m) * columns + c + w] = sum;
    }
  }
}

template <class S, int M>
struct ColumnSums {
  Result<S> at[M];
};

/// out[m][c] (+)= the sum over the blocks of partial [blocks, M, columns].
template <int Lanes, int M, class S>
__global__ __launch_bounds__(kColumnLanes* Lanes) void sum_partial(int64_t blocks, int64_t columns,
                                                                   const S* partial,
                                                                   ColumnSums<S, M> out) {
  __shared__ S shared[Lanes][kColumnLanes];
  const int64_t i = int64_t{blockIdx.x} * kColumnLanes + threadIdx.x;
  S sum = 0;
  if (i < columns * M) {
#pragma unroll 8
    for (int64_t b = threadIdx.y; b < blocks; b += Lanes) sum += partial[b * M * columns + i];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= columns * M || !out.at[i / columns]) return;
  for (int y = 1; y < Lanes; ++y) sum += shared[y][threadIdx.x];
  out.at[i / columns].put(i % columns, sum);
}

template <int M, class S>
void add_partial(const Context& on, int64_t blocks, int64_t columns, const S* partial,
                 const ColumnSums<S, M>& out) {
  constexpr int kLanes = 32;  // there are few columns, and little time
  const auto tiles = static_cast<unsigned>((columns * M + kColumnLanes - 1) / kColumnLanes);
  sum_partial<kLanes>
      <<<tiles, dim3(kColumnLanes, kLanes), 0, on.stream>>>(blocks, columns, partial, out);
  require_launched("sums of columns");
}

/// out[m][c] (+)= the sum over rows r of what f.add(r, place, f.fetch(r, place), total) adds to
/// total[m][0..W), which are columns [c, c + W); place = f.place(c).
template <int W, int M, class S, class F>
void sum_columns(const Context& on, int64_t rows, int64_t columns, const F& f,
                 const ColumnSums<S, M>& out) {
  if (columns == 0) return;
  constexpr int64_t kMostBlocks = 128, kFewestRows = 4 * kRowLanes;
  const int64_t block_rows = std::max(kFewestRows, (rows + kMostBlocks - 1) / kMostBlocks);
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
  const int64_t tiles = (columns + kColumnLanes * W - 1) / (kColumnLanes * W);
  Tensor partial =
      Tensor::empty({std::max<int64_t>(blocks, 1), M, columns}, dtype_of<S>, on.device);
  S* sums = partial.data<S>();
  if (blocks > 0) {
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(blocks));
    sum_row_blocks<W, M>
        <<<grid, dim3(kColumnLanes, kRowLanes), 0, on.stream>>>(rows, columns, block_rows, f, sums);
  }
  add_partial<M>(on, blocks, columns, sums, out);
}

}  // namespace regla::cuda
