#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"

// Looking up rows, and adding gradients to them. For the gradient tokens are sorted by id, those
// of one id staying in order; pieces of the sorted list are summed by themselves. The order of
// every sum is that of the tokens, whatever the card.
namespace regla::cuda {
namespace {

// Bytes: the rows read and y once.
template <class S, int W>
struct LookUpRow {
  int64_t D;
  const int32_t* ids;
  Elements<S> table;
  Result<S> y;

  __device__ void operator()(const Team& team, int64_t row) const {
    const int64_t from = team.is_active ? ids[row] * D : 0;
    const HeldRow<S, W, 8> held(team, table, from, D);
    held.each([&](int64_t j, const S(&v)[W]) { y.put(row * D + j, v); });
  }
};

constexpr int64_t kPiece = 32;  // sorted tokens that a block adds up
constexpr int kAhead = 8;       // rows that a thread asks for at once

/// The sorted tokens and where sums go. A run is the tokens of one id. What a piece has of a run
/// that began before it is its `early` sum, of a run that goes on behind it its `late` sum (early,
/// if both are so); runs within a piece are complete.
template <class S>
struct SortedGradient {
  int64_t count, D;
  const int32_t *ids, *tokens;  // [count], sorted by id
  Typed<S> d_y;
  Result<S> d_table;  // added to
  S* partial;         // [pieces, 2 (early, late), D]

  __device__ bool continues(int64_t i) const {  // whether i and i + 1 are of one run
    return i >= 0 && i + 1 < count && ids[i] == ids[i + 1];
  }
};

// What a warp knows of its piece lies in its lanes, so that no row waits for more than its address.
// Bytes: d_y once; the rows of the table that occur, read and written; the partial sums.
template <class S, int W>
__global__ void add_pieces(SortedGradient<S> g) {
  static_assert(kPiece == 32);  // a token per lane
  const int64_t j = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * W;
  const int64_t begin = blockIdx.x * kPiece, mine = begin + threadIdx.x % 32;
  const int count = static_cast<int>(min(kPiece, g.count - begin));
  const int32_t id = mine < g.count ? g.ids[mine] : 0, token = mine < g.count ? g.tokens[mine] : 0;
  const unsigned goes_on = __ballot_sync(0xffffffffu, g.continues(mine));
  bool is_early = g.continues(begin - 1);
  S sum[W] = {};
  for (int first = 0; first < count; first += kAhead) {
    S rows[kAhead][W], before[kAhead][W];  // of d_y, and of the table where runs end
    int64_t places[kAhead];
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int64_t from = __shfl_sync(0xffffffffu, token, first + n) * g.D + j;
      places[n] = __shfl_sync(0xffffffffu, id, first + n) * g.D + j;
      if (first + n >= count || j >= g.D) continue;
      g.d_y.load(from, rows[n]);
      if ((goes_on >> (first + n) & 1) == 0) g.d_table.before(places[n], before[n]);
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int i = first + n;
      if (i >= count || j >= g.D) break;
      for (int w = 0; w < W; ++w) sum[w] += rows[n][w];
      const bool follows = goes_on >> i & 1;
      if (follows && i + 1 < count) continue;
      if (is_early || follows) {
        S* to = g.partial + (blockIdx.x * 2 + (is_early ? 0 : 1)) * g.D + j;
        for (int w = 0; w < W; ++w) to[w] = sum[w];
      } else {
        for (int w = 0; w < W; ++w) sum[w] += before[n][w];
        g.d_table.set(places[n], sum);
      }
      for (int w = 0; w < W; ++w) sum[w] = 0;
      is_early = false;
    }
  }
}

/// Adds up the runs that do not end in the piece where they begin.
template <class S, int W>
__global__ void add_long_runs(SortedGradient<S> g) {
  const int64_t j = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * W;
  const int64_t begin = blockIdx.x * kPiece, last = min(begin + kPiece, g.count) - 1;
  if (j >= g.D || !g.continues(last)) return;
  const int32_t id = g.ids[last];
  if (g.continues(begin - 1) && g.ids[begin] == id) return;  // began before
  S sum[W];
  for (int w = 0; w < W; ++w) sum[w] = g.partial[(blockIdx.x * 2 + 1) * g.D + j + w];
  for (int64_t first = blockIdx.x + 1;; first += kAhead) {
    S parts[kAhead][W];
    bool is_part[kAhead];
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int64_t begins = (first + n) * kPiece;
      is_part[n] = begins < g.count && g.ids[begins] == id;
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const S* part = g.partial + (first + n) * 2 * g.D + j;
      for (int w = 0; w < W; ++w) parts[n][w] = is_part[n] ? part[w] : S(0);
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      if (!is_part[n]) return g.d_table.put(id * g.D + j, sum);
      for (int w = 0; w < W; ++w) sum[w] += parts[n][w];
    }
  }
}

/// Ids in order and the tokens that they belong to; tokens of one id stay in theirs.
struct Sorted {
  Tensor ids, tokens;
};

Sorted sorted(const Context& on, const Tensor& unsorted, int64_t rows) {
  const int64_t count = unsorted.numel();
  Tensor places = Tensor::empty({count}, DType::I32, on.device);
  Tensor ids = Tensor::empty_like(places), tokens = Tensor::empty_like(places);
  auto* place = places.data<int32_t>();
  for_each(on, count, [=] __device__(int64_t i) { place[i] = static_cast<int32_t>(i); });
  const int bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(rows - 1, 1)));
  size_t bytes = 0;
  const auto sort = [&](void* scratch) {
    require(cub::DeviceRadixSort::SortPairs(scratch, bytes, unsorted.data<int32_t>(),
                                            ids.data<int32_t>(), place, tokens.data<int32_t>(),
                                            static_cast<int>(count), 0, bits, on.stream),
            "sort tokens");
  };
  sort(nullptr);  // says how much it needs
  Tensor scratch = Tensor::empty({static_cast<int64_t>(bytes / 4 + 1)}, DType::I32, on.device);
  sort(scratch.raw());
  return {ids, tokens};
}

}  // namespace

void embedding(const Tensor& ids, const Tensor& table, Tensor y) {
  for_sum_type(y.dtype(), "embedding", [&](auto tag) {
    using S = decltype(tag);
    const int64_t D = table.dim(1);
    for_width<S>(
        D,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          for_each_row<W>(
              context(y), ids.numel(), D,
              LookUpRow<S, W>{D, ids.data<int32_t>(), Elements<S>(table), Result<S>(y)});
        },
        table, y);
  });
}

void embedding_backward(const Tensor& ids, const Tensor& d_y, Sink d_table) {
  if (!d_table) return;
  if (!d_table.accumulate) d_table.tensor.fill(0);
  const int64_t count = ids.numel(), D = d_table.tensor.dim(1);
  if (count == 0 || D == 0) return;
  const Context& on = context(d_y);
  const Sorted by_id = sorted(on, ids, d_table.tensor.dim(0));
  const int64_t pieces = (count + kPiece - 1) / kPiece;
  for_sum_type(d_y.dtype(), "embedding", [&](auto tag) {
    using S = decltype(tag);
    Tensor partial = Tensor::empty({pieces, 2, D}, dtype_of<S>, on.device);
    const SortedGradient<S> gradient = {.count = count,
                                        .D = D,
                                        .ids = by_id.ids.data<int32_t>(),
                                        .tokens = by_id.tokens.data<int32_t>(),
                                        .d_y = Typed<S>(d_y),
                                        .d_table = Result<S>(Sink{d_table.tensor, true}),
                                        .partial = partial.data<S>()};
    for_width<S>(
        D,
        [&](auto width) {
          constexpr int W = decltype(width)::value;
          constexpr unsigned kColumns = 64;
          const dim3 grid(static_cast<unsigned>(pieces),
                          static_cast<unsigned>((D + kColumns * W - 1) / (kColumns * W)));
          add_pieces<S, W><<<grid, kColumns, 0, on.stream>>>(gradient);
          add_long_runs<S, W><<<grid, kColumns, 0, on.stream>>>(gradient);
        },
        d_y, d_table.tensor);
  });
  require_launched("embedding_backward");
}

}  // namespace regla::cuda
