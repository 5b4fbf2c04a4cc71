#include <cub/device/device_segmented_radix_sort.cuh>
#include <limits>

#include "backends/cuda/kernels.h"
#include "backends/cuda/rows.cuh"
#include "core/random.h"

// A draw from each row: its scores are sorted, most probable first, and a block per row adds their
// weights up until they pass what the random number says.
namespace regla::cuda {
namespace {

constexpr uint64_t kSamplingStream = 0x73616d706c65;  // apart from the streams of dropout
constexpr int kRowBits = 48;                          // where a row's number begins in its stream

/// The row's highest score below `vocab`, the lower id first; -1 where any score is not finite.
/// Bytes: scores once.
template <class S>
struct HighestRow {
  int64_t row_size, vocab;
  Elements<S> scores;
  int32_t* ids;

  __device__ void operator()(const Team& team, int64_t row) const {
    S highest = -std::numeric_limits<S>::infinity();
    int is_broken = 0;
    team.each<1>(row_size, [&](int64_t j) {
      const S score = scores[row * row_size + j];
      if (!isfinite(score)) is_broken = 1;
      if (j < vocab && score > highest) highest = score;
    });
    highest = team.max(highest);
    is_broken = team.max(is_broken);
    int32_t id = std::numeric_limits<int32_t>::max();
    team.each<1>(vocab, [&](int64_t j) {
      const auto at = static_cast<int32_t>(j);
      if (scores[row * row_size + j] == highest && at < id) id = at;
    });
    id = team.min(id);
    if (team.leads()) ids[row] = is_broken != 0 ? -1 : id;
  }
};

/// Running sums of weights that the threads of a block have contiguous parts of.
class RunningSums {
 public:
  template <class F>
  __device__ RunningSums(int64_t count, F weight) : count_(count) {
    const int64_t part = (count + kThreads - 1) / kThreads;
    begin_ = min(count, threadIdx.x * part);
    end_ = min(count, begin_ + part);
    __shared__ double sums[kThreads + 1];
    double sum = 0;
    for (int64_t i = begin_; i < end_; ++i) sum += weight(i);
    sums[threadIdx.x + 1] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      sums[0] = 0;
      for (int t = 1; t <= kThreads; ++t) sums[t] += sums[t - 1];
    }
    __syncthreads();
    before_ = sums[threadIdx.x];
    total_ = sums[kThreads];
    __syncthreads();
  }

  __device__ double total() const { return total_; }

  /// The first place at which the running sum exceeds `target`, else the last.
  template <class F>
  __device__ int64_t index_at(double target, F weight) const {
    __shared__ int first;
    if (threadIdx.x == 0) first = static_cast<int>(count_ - 1);
    __syncthreads();
    double sum = before_;
    for (int64_t i = begin_; i < end_ && before_ <= target; ++i) {
      sum += weight(i);
      if (sum <= target) continue;
      atomicMin(&first, static_cast<int>(i));
      break;
    }
    __syncthreads();
    const int found = first;
    __syncthreads();
    return found;
  }

 private:
  int64_t count_, begin_, end_;
  double before_, total_;
};

template <class S>
struct Draw {
  int64_t vocab, most;  // ids per row; of those, the most probable that may be drawn
  const S* scores;      // [B, vocab], the highest first
  const int32_t *ids, *number;
  double temperature, top_p;
  uint64_t seed;
  int32_t* out;  // -1 where a score is not finite, and stays so
};

template <class S>
__global__ __launch_bounds__(kThreads) void draw_ids(Draw<S> draw) {
  const int64_t b = blockIdx.x;
  if (draw.out[b] < 0) return;
  const S* scores = draw.scores + b * draw.vocab;
  const double highest = scores[0];
  const auto weight = [&](int64_t i) { return exp((scores[i] - highest) / draw.temperature); };
  int64_t count = draw.most;
  if (draw.top_p < 1) {
    const RunningSums sums(count, weight);
    count = sums.index_at(draw.top_p * sums.total(), weight) + 1;
  }
  const RunningSums sums(count, weight);
  const Random random(draw.seed, kSamplingStream + (static_cast<uint64_t>(b) << kRowBits));
  const double uniform = random.uniform(static_cast<uint64_t>(*draw.number));
  const int64_t at = sums.index_at(uniform * sums.total(), weight);
  if (threadIdx.x == 0) draw.out[b] = draw.ids[b * draw.vocab + at];
}

/// The scores of every row and their ids, the highest first; equal ones stay in order.
template <class S>
void sort_rows(const Context& on, int64_t B, int64_t row_size, int64_t vocab,
               const Elements<S>& scores, const Tensor& sorted, const Tensor& sorted_ids) {
  Tensor unsorted = Tensor::empty_like(sorted), places = Tensor::empty_like(sorted_ids);
  Tensor borders = Tensor::empty({B + 1}, DType::I32, on.device);
  Tensor to = sorted, to_ids = sorted_ids;
  S* copy = unsorted.data<S>();
  auto *place = places.data<int32_t>(), *border = borders.data<int32_t>();
  for_each(on, B * vocab, [=] __device__(int64_t i) {
    copy[i] = scores[i / vocab * row_size + i % vocab];
    place[i] = static_cast<int32_t>(i % vocab);
  });
  for_each(on, B + 1, [=] __device__(int64_t i) { border[i] = static_cast<int32_t>(i * vocab); });
  size_t bytes = 0;
  const auto sort = [&](void* scratch) {
    require(cub::DeviceSegmentedRadixSort::SortPairsDescending(
                scratch, bytes, copy, to.data<S>(), place, to_ids.data<int32_t>(),
                static_cast<int>(B * vocab), static_cast<int>(B), border, border + 1, 0,
                static_cast<int>(8 * sizeof(S)), on.stream),
            "sort scores");
  };
  sort(nullptr);  // says how much it needs
  Tensor scratch = Tensor::empty({static_cast<int64_t>(bytes / 4 + 1)}, DType::I32, on.device);
  sort(scratch.raw());
}

}  // namespace

void sample(const SampleArgs& args, Tensor ids) {
  const Context& on = context(ids);
  const int64_t B = args.scores.dim(0), row_size = args.scores.dim(1);
  const int64_t vocab = args.vocab > 0 ? std::min(args.vocab, row_size) : row_size;
  auto* out = ids.data<int32_t>();
  for_sum_type(args.scores.dtype(), "sample", [&](auto tag) {
    using S = decltype(tag);
    const Elements<S> scores(args.scores);
    for_each_row<1>(on, B, row_size, HighestRow<S>{row_size, vocab, scores, out});
    if (args.temperature == 0 || B == 0) return;
    Tensor sorted = Tensor::empty({B, vocab}, dtype_of<S>, on.device);
    Tensor sorted_ids = Tensor::empty({B, vocab}, DType::I32, on.device);
    sort_rows(on, B, row_size, vocab, scores, sorted, sorted_ids);
    draw_ids<S><<<static_cast<unsigned>(B), kThreads, 0, on.stream>>>(
        {.vocab = vocab,
         .most = args.top_k > 0 ? std::min(args.top_k, vocab) : vocab,
         .scores = sorted.data<S>(),
         .ids = sorted_ids.data<int32_t>(),
         .number = args.draw.data<int32_t>(),
         .temperature = args.temperature,
         .top_p = args.top_p,
         .seed = args.seed,
         .out = out});
  });
  require_launched("sample");
}

}  // namespace regla::cuda
