#include "app/bench/measurements.h"

#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <numeric>

#include "backends/kernels.h"
#include "core/check.h"
#include "core/memory.h"
#include "core/parallel.h"

namespace regla::app {
namespace {

constexpr double kTolerance = 1e-4;  // float
constexpr int64_t kMostTrials = 10;

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Gives memory that is not in use back and forgets the peak so far, where the system can do that:
/// what a check needed is not what the work needs.
void reset_peak_memory() {
  memory({}).trim();
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
  std::ofstream("/proc/self/clear_refs") << 5;
}

/// The most memory that this process has had in use since then, in bytes.
int64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

}  // namespace

double BenchRow::quantile(double q) const {
  const double place = q * static_cast<double>(seconds.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, seconds.size() - 1);
  return std::lerp(seconds[below], seconds[above], place - static_cast<double>(below));
}

Measurements::Measurements(int64_t repeats, std::string only)
    : repeats_(repeats), trials_(std::min(repeats + 1, kMostTrials)), only_(std::move(only)) {
  check(repeats > 0, "[bench] expected at least 1 repetition, got ", repeats);
  sgemm_ = {sgemm_peak(trials_)};
}

void Measurements::time_in_turn(const std::vector<Piece>& pieces) {
  std::vector<BenchRow> rows;
  reset_peak_memory();
  for (const Piece& piece : pieces) {
    rows.push_back({.name = piece.name, .work = piece.work, .seconds = {}});
    piece.run();
  }
  for (int64_t i = 0; i < repeats_; ++i) {
    if (i > 0 && pieces.size() > 1) sgemm_.push_back(sgemm_peak(trials_));
    for (size_t p = 0; p < pieces.size(); ++p) {
      const MemoryStats before = memory({}).stats();
      rows[p].seconds.push_back(seconds_of(pieces[p].run));
      const MemoryStats after = memory({}).stats();
      rows[p].allocated_bytes += after.bytes_requested - before.bytes_requested;
      rows[p].system_bytes += after.system_bytes - before.system_bytes;
    }
  }
  for (BenchRow& row : rows) {
    row.allocated_bytes /= repeats_;
    row.peak_memory = peak_memory();
    std::sort(row.seconds.begin(), row.seconds.end());
    rows_.push_back(std::move(row));
  }
  sgemm_.push_back(sgemm_peak(trials_));
}

double Measurements::best_sgemm() const { return *std::max_element(sgemm_.begin(), sgemm_.end()); }

double sgemm_peak(int64_t trials) {
  constexpr int64_t kSize = 1536;
  const Tensor a = Tensor::full({kSize, kSize}, 0.5, DType::F32), b = a.clone();
  const Tensor c = Tensor::empty({kSize, kSize}, DType::F32);
  double best = 0;
  for (int64_t trial = 0; trial < trials; ++trial) {
    const double seconds =
        seconds_of([&] { kernels({}).matmul({.a = a, .b = b, .bias = {}}, Sink{c}); });
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds / 1e9);
  }
  return best;
}

uint64_t sum_of_words(const Tensor& tensor) {
  constexpr int64_t kGrain = int64_t{1} << 16;  // 512 KiB
  const auto* words = static_cast<const uint64_t*>(tensor.raw());
  std::atomic<uint64_t> total = 0;
  parallel_for(tensor.bytes() / 8, kGrain, [&](int64_t begin, int64_t end) {
    // Integers: a sum of floats may not be reordered into vectors.
    total += std::accumulate(words + begin, words + end, uint64_t{0});
  });
  return total;
}

double read_bandwidth(int64_t trials) {
  constexpr int64_t kWords = int64_t{1} << 25;  // 256 MiB
  Tensor buffer = Tensor::empty({kWords}, DType::F64);
  auto* words = static_cast<uint64_t*>(buffer.raw());
  std::iota(words, words + kWords, 1);
  double best = 0;
  for (int64_t trial = 0; trial < trials; ++trial) {
    uint64_t sum = 0;
    const double seconds = seconds_of([&] { sum = sum_of_words(buffer); });
    check(sum == (uint64_t{1} << 24) * ((uint64_t{1} << 25) + 1),
          "[bench] the sum over the buffer is wrong");
    best = std::max(best, 8.0 * kWords / seconds / 1e9);
  }
  return best;
}

void check_close(const std::string& what, const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.values(), y = b.values();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    check(std::isfinite(x[i] - y[i]), "[bench] ", what, ": a value is not finite");
    difference = std::max(difference, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
  }
  check(difference <= kTolerance * largest, "[bench] ", what, ": two forms differ by ",
        difference / largest, ", more than ", kTolerance, "; no time is given");
}

Tensor random_values(const Shape& shape, uint64_t seed) {
  Tensor x = Tensor::empty(shape, DType::F32);
  const Random random(seed, 0);
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.data<float>()[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  }
  return x;
}

std::vector<int32_t> random_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  const Random random(2, 0);
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(random.uniform(static_cast<uint64_t>(i)) *
                                       static_cast<double>(vocab)));
  }
  return ids;
}

}  // namespace regla::app
