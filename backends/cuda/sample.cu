#include <algorithm>
#include <limits>

#include "backends/cuda/block.cuh"
#include "backends/cuda/chained.cuh"
#include "backends/cuda/elements.cuh"
#include "backends/cuda/kernels.h"
#include "backends/cuda/last_block.cuh"
#include "backends/cuda/loops.cuh"
#include "core/random.h"

// A draw from each row without sorting it. Of the ids in the order of their scores, the first one
// is wanted at which the running sum of weights, or of ones, exceeds a target. All blocks together
// find the highest score and fill bins of scores with weights; a block per row then finds the bin
// where the sum exceeds the target, and the id among those in the bin. Weights are whole numbers,
// 2^44 for the highest score, so that a sum does not depend on its order.
// Bytes: the scores, three times, twice of them from the cache.
namespace regla::cuda {
namespace {

constexpr uint64_t kSamplingStream = 0x73616d706c65;  // apart from the streams of dropout
constexpr int kRowBits = 48;                          // where a row's number begins in its stream
constexpr double kOne = 0x1p44;                       // the weight of the highest score
constexpr int kParts = 32, kMostRows = 4096;          // of a row, and rows that are cut into parts
constexpr int kDrawThreads = 1024, kBins = 2048, kBinsEach = kBins / kDrawThreads;
constexpr int kMostListed = kDrawThreads;  // ids of a bin that are put in order
constexpr double kWidest = 64;             // bins divide weights down to e^-64, all below share one

/// Blocks that are done, by row: 0 between two launches, of which one at a time is under way.
__device__ int parts_done[kMostRows];

/// Of some scores the highest, the lowest id that has it, and the lowest.
template <class S>
struct Extremes {
  S highest, lowest;
  int32_t id;
  int32_t is_broken;  // whether any is not finite, be it one that is never drawn

  __device__ void join(const Extremes& other) {
    const bool is_better = other.highest > highest || (other.highest == highest && other.id < id);
    if (is_better) {
      highest = other.highest;
      id = other.id;
    }
    lowest = other.lowest < lowest ? other.lowest : lowest;
    is_broken |= other.is_broken;
  }
  __device__ void join_lanes() {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      join({__shfl_xor_sync(0xffffffffu, highest, offset),
            __shfl_xor_sync(0xffffffffu, lowest, offset), __shfl_xor_sync(0xffffffffu, id, offset),
            __shfl_xor_sync(0xffffffffu, is_broken, offset)});
    }
  }
};

template <class S>
struct Rows {
  int row_size, vocab, parts;
  const S* scores;
  Extremes<S>*of_parts, *of_rows;  // [parts, B]; [B]
  double temperature;
  unsigned long long* weights;  // [B, kBins], null where nothing is drawn
  unsigned* counts;             // [B, kBins]
  int32_t* ids;                 // [B]: out

  /// The score's weight beside the highest of its row.
  __device__ unsigned long long weight(S score, S highest) const {
    const double x = (static_cast<double>(score) - static_cast<double>(highest)) / temperature;
    return static_cast<unsigned long long>(exp(x) * kOne + 0.5);
  }
};

template <class S>
constexpr S kInfinity = std::numeric_limits<S>::infinity();
constexpr int32_t kNoId = std::numeric_limits<int32_t>::max();

/// The extremes of a part, and by the block that is done last those of the row; bins are emptied.
template <class S>
__global__ __launch_bounds__(kThreads) void find_extremes(Rows<S> rows) {
  let_next_begin();
  const int part = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y);
  const int share = (rows.row_size + rows.parts - 1) / rows.parts;
  const int begin = part * share, end = min(begin + share, rows.row_size);
  const S* scores = rows.scores + int64_t{b} * rows.row_size;
  const auto fresh = [] { return Extremes<S>{-kInfinity<S>, kInfinity<S>, kNoId, 0}; };
  Extremes<S> found = fresh();
  await_before();
#pragma unroll 8
  for (int j = begin + static_cast<int>(threadIdx.x); j < end; j += kThreads) {
    const S score = scores[j];
    const bool counts = j < rows.vocab;
    found.join({counts ? score : -kInfinity<S>, counts ? score : kInfinity<S>, counts ? j : kNoId,
                isfinite(score) ? 0 : 1});
  }
  if (rows.weights != nullptr) {
    for (int i = part * kThreads + static_cast<int>(threadIdx.x); i < kBins;
         i += rows.parts * kThreads) {
      rows.weights[int64_t{b} * kBins + i] = 0;
      rows.counts[int64_t{b} * kBins + i] = 0;
    }
  }
  __shared__ Extremes<S> of_warps[kThreads / 32];
  found.join_lanes();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = found;
  __syncthreads();
  if (threadIdx.x < 32) {
    found = threadIdx.x < kThreads / 32 ? of_warps[threadIdx.x] : fresh();
    found.join_lanes();
    if (threadIdx.x == 0) rows.of_parts[part * gridDim.y + b] = found;
  }
  if (rows.parts > 1) {
    if (!is_last_block(parts_done + b, rows.parts)) return;
    if (threadIdx.x < 32) {
      found = static_cast<int>(threadIdx.x) < rows.parts
                  ? rows.of_parts[threadIdx.x * gridDim.y + b]
                  : fresh();
      found.join_lanes();
    }
  }
  if (threadIdx.x != 0) return;
  rows.of_rows[b] = found;
  rows.ids[b] = found.is_broken != 0 ? -1 : found.id;
}

/// Bins of equal widths for the scores from `high` down.
struct Bins {
  double high, factor;

  __device__ Bins(double highest, double lowest, double widest)
      : high(highest), factor((kBins - 1) / fmax(fmin(highest - lowest, widest), 1e-300)) {}

  __device__ int of(double score) const {
    return static_cast<int>(fmin((high - score) * factor, kBins - 1.0));
  }
};

template <class S>
__device__ Bins first_bins(const Extremes<S>& row, double temperature) {
  return Bins(row.highest, row.lowest, kWidest * temperature);
}

template <class S>
__global__ __launch_bounds__(kThreads) void fill_bins(Rows<S> rows) {
  let_next_begin();
  const int b = static_cast<int>(blockIdx.y);
  const S* scores = rows.scores + int64_t{b} * rows.row_size;
  await_before();
  const Extremes<S> row = rows.of_rows[b];
  if (row.is_broken != 0) return;
  const Bins bins = first_bins(row, rows.temperature);
  for (int j = static_cast<int>(blockIdx.x * kThreads + threadIdx.x); j < rows.vocab;
       j += static_cast<int>(gridDim.x) * kThreads) {
    const int64_t bin = int64_t{b} * kBins + bins.of(scores[j]);
    atomicAdd(rows.weights + bin, rows.weight(scores[j], row.highest));
    atomicAdd(rows.counts + bin, 1u);
  }
}

/// Weights and ids that come before something.
struct Sums {
  unsigned long long weight = 0;
  unsigned count = 0;

  __device__ void add(const Sums& other) {
    weight += other.weight;
    count += other.count;
  }
  __device__ unsigned long long measure(bool by_count) const { return by_count ? count : weight; }
};

/// A block's search in a row.
template <class S>
class Search {
 public:
  struct Place {
    int32_t id;
    Sums reached;  // up to it, with its own
  };

  __device__ Search(const Rows<S>& rows, int b, unsigned char* shared)
      : rows_(rows),
        b_(b),
        scores_(rows.scores + int64_t{b} * rows.row_size),
        row_(rows.of_rows[b]),
        weights_(reinterpret_cast<unsigned long long*>(shared)),
        counts_(reinterpret_cast<unsigned*>(weights_ + kBins)) {}

  /// The first id at which the running sum exceeds the target; some sum does.
  __device__ Place find(bool by_count, unsigned long long target) {
    Bins bins = first_bins(row_, rows_.temperature);
    Sums before;
    Bin bin = bin_of(rows_.weights + int64_t{b_} * kBins, rows_.counts + int64_t{b_} * kBins,
                     before, by_count, target);
    double high = row_.highest, low = row_.lowest;
    while (bin.own.count > kMostListed) {
      narrow(bins, bin.number, high, low);
      if (high == low) return among_equals(high, bin.before, by_count, target);
      bins = Bins(high, low, high - low);
      refill(bins, high, low);
      bin = bin_of(weights_, counts_, bin.before, by_count, target);
    }
    return among_few(bins, bin.number, high, low, bin.before, by_count, target);
  }

  /// The weights of all ids.
  __device__ unsigned long long total() const {
    Sums own;
#pragma unroll
    for (int i = 0; i < kBinsEach; ++i) {
      own.weight += rows_.weights[int64_t{b_} * kBins + i * kDrawThreads + threadIdx.x];
    }
    return total_of(own);
  }

  /// The weights of the ids whose scores are that much above the highest, or less below it.
  __device__ unsigned long long total_from(double least_lead) const {
    Sums own;
    each([&](int, S score) {
      const double lead = static_cast<double>(score) - static_cast<double>(row_.highest);
      if (lead >= least_lead) own.weight += rows_.weight(score, row_.highest);
    });
    return total_of(own);
  }

  __device__ bool is_broken() const { return row_.is_broken != 0; }

 private:
  struct Bin {
    int number;
    Sums before, own;
  };

  /// Calls f(id, score) for this thread's part of the row, several loads at a time.
  template <class F>
  __device__ void each(F f) const {
    constexpr int kAhead = 8;
    for (int first = static_cast<int>(threadIdx.x); first < rows_.vocab;
         first += kAhead * kDrawThreads) {
      S some[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int j = first + a * kDrawThreads;
        some[a] = j < rows_.vocab ? scores_[j] : S(0);
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int j = first + a * kDrawThreads;
        if (j < rows_.vocab) f(j, some[a]);
      }
    }
  }

  /// Sums of the threads before this one, added to `before`.
  __device__ Sums before_thread(const Sums& own, Sums before) const {
    __shared__ Sums of_warps[kDrawThreads / 32];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    Sums running = own;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const Sums other = {__shfl_up_sync(0xffffffffu, running.weight, offset),
                          __shfl_up_sync(0xffffffffu, running.count, offset)};
      if (lane >= offset) running.add(other);
    }
    if (lane == 31) of_warps[warp] = running;
    __syncthreads();
    for (int w = 0; w < warp; ++w) before.add(of_warps[w]);
    __syncthreads();
    before.add({running.weight - own.weight, running.count - own.count});
    return before;
  }

  /// The weights of all threads.
  __device__ unsigned long long total_of(const Sums& own) const {
    __shared__ unsigned long long all;
    const Sums before = before_thread(own, {});
    if (threadIdx.x == kDrawThreads - 1) all = before.weight + own.weight;
    __syncthreads();
    return all;  // the next sum begins with a barrier
  }

  /// The bin where the sum exceeds the target.
  __device__ Bin bin_of(const unsigned long long* weights, const unsigned* counts,
                        const Sums& before, bool by_count, unsigned long long target) const {
    __shared__ Bin found;
    Sums own[kBinsEach], all;
#pragma unroll
    for (int i = 0; i < kBinsEach; ++i) {
      const int bin = static_cast<int>(threadIdx.x) * kBinsEach + i;
      own[i] = {weights[bin], counts[bin]};
      all.add(own[i]);
    }
    Sums running = before_thread(all, before);
#pragma unroll
    for (int i = 0; i < kBinsEach; ++i) {
      const Sums earlier = running;
      running.add(own[i]);
      if (earlier.measure(by_count) <= target && target < running.measure(by_count)) {
        found = {static_cast<int>(threadIdx.x) * kBinsEach + i, earlier, own[i]};
      }
    }
    __syncthreads();
    const Bin bin = found;
    __syncthreads();
    return bin;
  }

  /// Makes high and low those of the scores in a bin.
  __device__ void narrow(const Bins& bins, int bin, double& high, double& low) const {
    Extremes<S> in_bin = {-kInfinity<S>, kInfinity<S>, kNoId, 0};
    each([&](int j, S score) {
      const bool is_within = score <= high && score >= low && bins.of(score) == bin;
      if (is_within) in_bin.join({score, score, j, 0});
    });
    __shared__ Extremes<S> of_warps[kDrawThreads / 32];
    in_bin.join_lanes();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = in_bin;
    __syncthreads();
    in_bin = of_warps[threadIdx.x % 32];
    in_bin.join_lanes();
    __syncthreads();
    high = in_bin.highest;
    low = in_bin.lowest;
  }

  /// Bins of the scores from low to high alone.
  __device__ void refill(const Bins& bins, double high, double low) {
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kDrawThreads) {
      weights_[i] = 0;
      counts_[i] = 0;
    }
    __syncthreads();
    each([&](int, S score) {
      if (score > high || score < low) return;
      atomicAdd(weights_ + bins.of(score), rows_.weight(score, row_.highest));
      atomicAdd(counts_ + bins.of(score), 1u);
    });
    __syncthreads();
  }

  /// The id among those of one score, which come in their own order.
  __device__ Place among_equals(double score, const Sums& before, bool by_count,
                                unsigned long long target) const {
    const unsigned long long weight = rows_.weight(static_cast<S>(score), row_.highest);
    const unsigned long long left = target - before.measure(by_count);
    const auto number = static_cast<unsigned>(by_count ? left : left / weight);
    const int each = (rows_.vocab + kDrawThreads - 1) / kDrawThreads;
    const int begin = static_cast<int>(threadIdx.x) * each, end = min(begin + each, rows_.vocab);
    Sums own;
    for (int j = begin; j < end; ++j) own.count += scores_[j] == score ? 1 : 0;
    unsigned passed = before_thread(own, {}).count;
    __shared__ int32_t found;
    for (int j = begin; j < end; ++j) {
      if (scores_[j] != score) continue;
      if (passed == number) found = j;
      ++passed;
    }
    __syncthreads();
    Place place = {found, before};
    place.reached.add({(number + 1) * weight, number + 1});
    __syncthreads();
    return place;
  }

  /// The id among those of a bin, which have a thread each.
  __device__ Place among_few(const Bins& bins, int bin, double high, double low, const Sums& before,
                             bool by_count, unsigned long long target) const {
    __shared__ S scores[kMostListed];
    __shared__ int32_t ids[kMostListed];
    __shared__ unsigned long long weights[kMostListed];
    __shared__ int count;
    __shared__ Place found;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    each([&](int j, S score) {
      if (score > high || score < low || bins.of(score) != bin) return;
      const int at = atomicAdd(&count, 1);  // in any order: what comes before what is asked below
      scores[at] = score;
      ids[at] = j;
    });
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i < count) weights[i] = rows_.weight(scores[i], row_.highest);
    __syncthreads();
    if (i < count) {
      Sums earlier = before;
      for (int o = 0; o < count; ++o) {
        const bool is_before = scores[o] > scores[i] || (scores[o] == scores[i] && ids[o] < ids[i]);
        if (is_before) earlier.add({weights[o], 1});
      }
      Sums running = earlier;
      running.add({weights[i], 1});
      if (earlier.measure(by_count) <= target && target < running.measure(by_count)) {
        found = {ids[i], running};
      }
    }
    __syncthreads();
    const Place place = found;
    __syncthreads();
    return place;
  }

  const Rows<S>& rows_;
  int b_;
  const S* scores_;
  Extremes<S> row_;
  unsigned long long* weights_;  // [kBins] of a part of the scores
  unsigned* counts_;
};

struct Draw {
  int top_k;  // at most the vocabulary
  double top_p, least_lead;
  uint64_t seed, first_row;
  const int32_t* number;
};

/// A share of a sum, below it.
__device__ unsigned long long share_of(double share, unsigned long long sum) {
  return min(static_cast<unsigned long long>(share * static_cast<double>(sum)), sum - 1);
}

template <class S>
__global__ __launch_bounds__(kDrawThreads) void draw_ids(Rows<S> rows, Draw draw) {
  let_next_begin();
  await_before();
  const int b = static_cast<int>(blockIdx.x);
  Search<S> search(rows, b, shared_memory<unsigned char>());
  if (search.is_broken()) return;
  const auto most = static_cast<unsigned>(draw.top_k);
  unsigned long long total =
      draw.top_k < rows.vocab ? search.find(true, most - 1).reached.weight : search.total();
  if (draw.top_p < 1) total = search.find(false, share_of(draw.top_p, total)).reached.weight;
  if (isfinite(draw.least_lead)) total = min(total, search.total_from(draw.least_lead));
  const Random random(draw.seed, kSamplingStream + ((draw.first_row + b) << kRowBits));
  const double uniform = random.uniform(static_cast<uint64_t>(*draw.number));
  const auto place = search.find(false, share_of(uniform, total));
  if (threadIdx.x == 0) rows.ids[b] = place.id;
}

/// Fresh memory for that many T.
template <class T>
Tensor room_for(int64_t count, Device device) {
  return Tensor::empty({(count * static_cast<int64_t>(sizeof(T)) + 7) / 8}, DType::F64, device);
}
template <class T>
T* as(Tensor& room) {
  return static_cast<T*>(room.raw());
}

template <class S>
void draw_rows(const SampleArgs& args, Tensor ids) {
  const Context& on = context(ids);
  const int64_t B = args.scores.dim(0), row_size = args.scores.dim(1);
  const int64_t vocab = args.vocab > 0 ? std::min<int64_t>(args.vocab, row_size) : row_size;
  constexpr int64_t kMostIds = int64_t{1} << 19;  // whose weights add up in 64 bits
  check(vocab <= kMostIds, "[sample] expected at most ", kMostIds, " ids, got ", vocab);
  const bool draws = args.temperature > 0;
  const int64_t parts = std::clamp<int64_t>(row_size / kThreads, 1, B > kMostRows ? 1 : kParts);
  Tensor of_parts = room_for<Extremes<S>>(parts * B, on.device);
  Tensor of_rows = room_for<Extremes<S>>(B, on.device);
  Tensor weights = room_for<uint64_t>(draws ? B * kBins : 0, on.device);
  Tensor counts = room_for<unsigned>(draws ? B * kBins : 0, on.device);
  const Rows<S> rows = {.row_size = static_cast<int>(row_size),
                        .vocab = static_cast<int>(vocab),
                        .parts = static_cast<int>(parts),
                        .scores = args.scores.data<S>(),
                        .of_parts = as<Extremes<S>>(of_parts),
                        .of_rows = as<Extremes<S>>(of_rows),
                        .temperature = args.temperature,
                        .weights = draws ? as<unsigned long long>(weights) : nullptr,
                        .counts = as<unsigned>(counts),
                        .ids = ids.data<int32_t>()};
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(B));
  launch_chained(on, find_extremes<S>, grid, kThreads, 0, rows);
  if (!draws) return;
  launch_chained(on, fill_bins<S>, grid, kThreads, 0, rows);
  const Draw draw = {
      .top_k = static_cast<int>(args.top_k > 0 ? std::min<int64_t>(args.top_k, vocab) : vocab),
      .top_p = args.top_p,
      .least_lead = args.least_lead(),
      .seed = args.seed,
      .first_row = static_cast<uint64_t>(args.first_row),
      .number = args.draw.data<int32_t>()};
  constexpr size_t kShared = kBins * (sizeof(unsigned long long) + sizeof(unsigned));
  ask_for_shared(draw_ids<S>, kShared);
  launch_chained(on, draw_ids<S>, dim3(static_cast<unsigned>(B)), kDrawThreads, kShared, rows,
                 draw);
}

}  // namespace

void sample(const SampleArgs& args, Tensor ids) {
  if (args.scores.numel() == 0) return;
  for_sum_type(args.scores.dtype(), "sample",
               [&](auto tag) { draw_rows<decltype(tag)>(args, ids); });
}

}  // namespace regla::cuda
