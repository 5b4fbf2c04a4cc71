#include "app/bench/measurements.h"

#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <numeric>

#include "backends/backend.h"
#include "backends/copies.h"
#include "core/check.h"
#include "core/memory.h"
#include "core/parallel.h"

namespace regla::app {
namespace {

constexpr int64_t kMostTrials = 10;

/// Seconds that a device takes for what f asks of it.
template <class F>
double seconds_of(Clock& clock, F&& f) {
  const int64_t from = clock.note();
  f();
  return clock.seconds(from, clock.note());
}

/// Calls per timing on a GPU of a piece of work that takes so long: a brief one alone would last
/// no longer than the host takes to ask for it.
int64_t calls_for(double seconds) {
  constexpr double kShortest = 20e-3;
  return std::clamp<int64_t>(static_cast<int64_t>(kShortest / seconds), 1, 100);
}

/// Gives memory that is not in use back and forgets the peak so far, where the system can do that:
/// what a check needed is not what the work needs.
void reset_peak_memory(Device device) {
  memory({}).trim();
  memory(device).trim();
  memory(device).reset_peak();
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
  std::ofstream("/proc/self/clear_refs") << 5;
}

/// The most memory that this process has had in use since then, in bytes; on a GPU, its tensors.
int64_t peak_memory(Device device) {
  if (!device.is_cpu()) return memory(device).stats().peak_bytes_in_use;
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

/// What two forms of a computation may differ by: max|a - b| / max|b|, and the ratio of the roots
/// of mean squares.
struct Bounds {
  double largest, mean;
};
Bounds bounds_of(Precision precision) {
  switch (precision) {
    case Precision::Bf16:
      return {5e-2, 5e-3};
    case Precision::Tf32:
      return {1e-2, 1e-3};
    default:
      return {1e-4, 1e-4};
  }
}

/// GB/s of the best of some copies of so many words within a device.
double copy_bandwidth(Device device, int64_t trials, int64_t words) {
  const Tensor from = Tensor::zeros({words}, DType::F64, device);
  Tensor to = from.clone();
  const std::unique_ptr<Clock> clock = make_clock(device);
  double best = 0;
  for (int64_t trial = 0; trial < trials; ++trial) {
    const double seconds = seconds_of(*clock, [&] { to.copy_from(from); });
    best = std::max(best, 2.0 * static_cast<double>(from.bytes()) / seconds / 1e9);
  }
  return best;
}

}  // namespace

double BenchRow::quantile(double q) const {
  const double place = q * static_cast<double>(seconds.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, seconds.size() - 1);
  return std::lerp(seconds[below], seconds[above], place - static_cast<double>(below));
}

Measurements::Measurements(int64_t repeats, std::string only, Device device, Precision precision)
    : repeats_(repeats),
      trials_(std::min(repeats + 1, kMostTrials)),
      only_(std::move(only)),
      device_(device),
      precision_(precision),
      clock_(make_clock(device)) {
  check(repeats > 0, "[bench] expected at least 1 repetition, got ", repeats);
  products_ = {product_peak(device_, precision_, trials_)};
}

void Measurements::time_in_turn(const std::vector<Piece>& pieces) {
  std::vector<BenchRow> rows;
  std::vector<int64_t> calls;
  reset_peak_memory(device_);
  for (const Piece& piece : pieces) {
    rows.push_back({.name = piece.name, .work = piece.work, .seconds = {}});
    piece.run();
    if (!device_.is_cpu()) piece.run();  // a routine is recorded now
    calls.push_back(device_.is_cpu() ? 1 : calls_for(seconds_of(*clock_, piece.run)));
  }
  for (int64_t i = 0; i < repeats_; ++i) {
    if (i > 0 && pieces.size() > 1) {
      products_.push_back(product_peak(device_, precision_, trials_));
    }
    for (size_t p = 0; p < pieces.size(); ++p) {
      const MemoryStats before = memory(device_).stats();
      const double seconds = seconds_of(*clock_, [&] {
        for (int64_t call = 0; call < calls[p]; ++call) pieces[p].run();
      });
      rows[p].seconds.push_back(seconds / static_cast<double>(calls[p]));
      const MemoryStats after = memory(device_).stats();
      rows[p].allocated_bytes += (after.bytes_requested - before.bytes_requested) / calls[p];
      rows[p].system_bytes += after.system_bytes - before.system_bytes;
    }
  }
  for (BenchRow& row : rows) {
    row.allocated_bytes /= repeats_;
    row.peak_memory = peak_memory(device_);
    std::sort(row.seconds.begin(), row.seconds.end());
    rows_.push_back(std::move(row));
  }
  products_.push_back(product_peak(device_, precision_, trials_));
}

std::span<BenchRow> Measurements::time_rounds(const std::vector<Piece>& pieces, double seconds) {
  const size_t first = rows_.size();
  for (const Piece& piece : pieces) {
    rows_.push_back({.name = piece.name, .work = piece.work, .seconds = {}});
  }
  const std::span<BenchRow> rows = std::span(rows_).subspan(first);
  double taken = 0;
  for (int64_t round = 0; round < repeats_; ++round) {
    const double left = seconds * static_cast<double>(pieces.size()) - taken;
    if (round > 0 && left * static_cast<double>(round) < taken) break;
    for (size_t p = 0; p < pieces.size(); ++p) {
      memory(device_).reset_peak();
      const MemoryStats before = memory(device_).stats();
      rows[p].seconds.push_back(seconds_of(*clock_, pieces[p].run));
      const MemoryStats after = memory(device_).stats();
      rows[p].allocated_bytes = after.bytes_requested - before.bytes_requested;
      rows[p].system_bytes += round == 0 ? 0 : after.system_bytes - before.system_bytes;
      rows[p].peak_memory =
          std::max(rows[p].peak_memory, after.peak_bytes_in_use - before.bytes_in_use);
      taken += rows[p].seconds.back();
    }
  }
  for (BenchRow& row : rows) std::sort(row.seconds.begin(), row.seconds.end());
  products_.push_back(product_peak(device_, precision_, trials_));
  return rows;
}

double Measurements::best_product() const {
  return *std::max_element(products_.begin(), products_.end());
}

double product_peak(Device device, Precision precision, int64_t trials) {
  // Large enough to keep every unit of the device busy.
  const int64_t size = device.is_cpu() ? 1536 : 8192, part = size / 8;
  const DType dtype = activation_type(precision);
  const Tensor a = Tensor::empty({size, size}, dtype, device), c = Tensor::empty_like(a);
  const Tensor random = converted(random_values({part, size}), dtype).on(device);
  for (int64_t row = 0; row < size; row += part) a.slice(row, row + part).copy_from(random);
  const Tensor b = a.clone();
  const std::unique_ptr<Clock> clock = make_clock(device);
  double best = 0;
  for (int64_t trial = 0; trial < trials; ++trial) {
    const double seconds =
        seconds_of(*clock, [&] { kernels(device).matmul({.a = a, .b = b, .bias = {}}, Sink{c}); });
    const double flops = 2.0 * static_cast<double>(size) * static_cast<double>(size * size);
    best = std::max(best, flops / seconds / 1e9);
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

double memory_bandwidth(Device device, int64_t trials) {
  constexpr int64_t kWords = int64_t{1} << 25;  // 256 MiB
  if (!device.is_cpu()) return copy_bandwidth(device, trials, 4 * kWords);
  Tensor buffer = Tensor::empty({kWords}, DType::F64);
  auto* words = static_cast<uint64_t*>(buffer.raw());
  std::iota(words, words + kWords, 1);
  const std::unique_ptr<Clock> clock = make_clock(device);
  double best = 0;
  for (int64_t trial = 0; trial < trials; ++trial) {
    uint64_t sum = 0;
    const double seconds = seconds_of(*clock, [&] { sum = sum_of_words(buffer); });
    check(sum == (uint64_t{1} << 24) * ((uint64_t{1} << 25) + 1),
          "[bench] the sum over the buffer is wrong");
    best = std::max(best, 8.0 * kWords / seconds / 1e9);
  }
  return best;
}

void Measurements::check_close(const std::string& what, const Tensor& a, const Tensor& b,
                               double least) const {
  const Bounds bounds = bounds_of(precision_);
  const std::vector<double> x = a.values(), y = b.values();
  double difference = 0, largest = 0, sum = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    check(std::isfinite(x[i] - y[i]), "[bench] ", what, ": a value is not finite");
    difference = std::max(difference, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
    sum += (x[i] - y[i]) * (x[i] - y[i]);
  }
  check(difference <= bounds.largest * largest, "[bench] ", what, ": two forms differ by ",
        difference / largest, ", more than ", bounds.largest, "; no time is given");
  const double mean = std::sqrt(sum / static_cast<double>(y.size())), size = mean_size(b);
  check(mean <= std::max(bounds.mean * size, least), "[bench] ", what, ": two forms differ by ",
        mean / size, " in the mean, more than ", std::max(bounds.mean, least / size),
        "; no time is given");
}

double mean_size(const Tensor& x) {
  double sum = 0;
  for (const double value : x.values()) sum += value * value;
  return std::sqrt(sum / static_cast<double>(x.numel()));
}

Tensor random_values(const Shape& shape, uint64_t seed) {
  Tensor x = Tensor::empty(shape, DType::F32);
  const Random random(seed, 0);
  float* const to = x.data<float>();
  constexpr int64_t kGrain = 4096;
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      to[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
    }
  });
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
