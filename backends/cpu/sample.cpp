#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "backends/cpu/kernels.h"
#include "core/parallel.h"
#include "core/random.h"

namespace regla::cpu {
namespace {

using Scores = std::span<const double>;

constexpr uint64_t kSamplingStream = 0x73616d706c65;  // apart from the streams of dropout
constexpr int kRowBits = 48;                          // where a row's number begins in its stream

/// The ids that may be drawn, most probable first.
std::vector<int32_t> candidates(Scores scores, int64_t top_k) {
  std::vector<int32_t> ids(scores.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const double x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (top_k > 0 && top_k < static_cast<int64_t>(ids.size())) {
    std::nth_element(ids.begin(), ids.begin() + top_k, ids.end(), before);
    ids.resize(static_cast<size_t>(top_k));
  }
  std::sort(ids.begin(), ids.end(), before);
  return ids;
}

/// The first of the weights at which their running sum exceeds `target`.
size_t index_at(const std::vector<double>& weights, double target) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    sum += weights[i];
    if (sum > target) return i;
  }
  return weights.size() - 1;
}

/// `uniform`: what decides, in [0, 1).
int32_t sample_row(Scores row, const SampleArgs& args, double uniform) {
  const auto is_number = [](double score) { return std::isfinite(score); };
  if (!std::all_of(row.begin(), row.end(), is_number)) return -1;
  const auto vocab = static_cast<size_t>(args.vocab);
  const Scores scores = vocab > 0 && vocab < row.size() ? row.first(vocab) : row;
  if (args.temperature == 0) {
    return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  }
  const std::vector<int32_t> ids = candidates(scores, args.top_k);
  const double highest = scores[static_cast<size_t>(ids.front())];
  std::vector<double> weights;
  for (const int32_t id : ids) {
    weights.push_back(std::exp((scores[static_cast<size_t>(id)] - highest) / args.temperature));
  }
  if (args.top_p < 1) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    weights.resize(index_at(weights, args.top_p * total) + 1);
  }
  const double least = args.least_lead();
  while (scores[static_cast<size_t>(ids[weights.size() - 1])] - highest < least) weights.pop_back();
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  return ids[index_at(weights, uniform * total)];
}

}  // namespace

void sample(const SampleArgs& args, Tensor ids) {
  const int64_t B = args.scores.dim(0), row = args.scores.dim(1);
  const auto draw = static_cast<uint64_t>(args.draw.data<int32_t>()[0]);
  auto* out = ids.data<int32_t>();
  for_float_type(args.scores.dtype(), "sample", [&](auto tag) {
    using T = decltype(tag);
    const T* in = args.scores.data<T>();
    parallel_for(B, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const std::vector<double> scores(in + b * row, in + (b + 1) * row);
        const auto number = static_cast<uint64_t>(args.first_row + b);
        const Random random(args.seed, kSamplingStream + (number << kRowBits));
        out[b] = sample_row(scores, args, random.uniform(draw));
      }
    });
  });
}

}  // namespace regla::cpu
