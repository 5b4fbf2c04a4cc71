#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backends/clock.h"
#include "core/random.h"
#include "core/tensor.h"
#include "training/configuration.h"

namespace regla::app {

/// What one repetition of a piece of work amounts to. 0: not counted for this piece.
struct Work {
  double tokens = 0;
  double flops = 0;  ///< counted as in docs/flops.md
  double bytes = 0;  ///< that must be read or written, however well caches do
};

/// One line of a benchmark: repeated timings of the same work.
struct BenchRow {
  std::string name;
  Work work;
  std::vector<double> seconds;  ///< of each repetition, sorted
  int64_t calls = 1;            ///< in one repetition
  int64_t allocated_bytes = 0;  ///< handed out by Memory, per repetition
  int64_t system_bytes = 0;     ///< taken from the system by all repetitions after the first
  int64_t peak_memory = 0;      ///< most memory in that time, in bytes: of the process, of a GPU's
                                ///< tensors, of the work's own tensors; 0: not looked at
  int64_t state_bytes = 0;      ///< of what a text is remembered in at its end; 0: no text

  /// Between order statistics, linearly: 0 the fastest, 0.5 the median, 1 the slowest.
  double quantile(double q) const;
};

/// Something to be timed.
struct Piece {
  std::string name;
  Work work;
  std::function<void()> run;
};

/// Times pieces of work, with the speed of large matrix products before, between and after them.
class Measurements {
 public:
  /// `only`: how the names of the rows to measure begin. Products are of that precision. A time is
  /// the device's, until it has done all.
  Measurements(int64_t repeats, std::string only, Device device, Precision precision);

  Device device() const { return device_; }
  Precision precision() const { return precision_; }
  int64_t repeats() const { return repeats_; }
  bool wants(const std::string& name) const { return name.starts_with(only_); }

  /// How often the machine's own limits are measured: once more than the work, ten times at most.
  int64_t trials() const { return trials_; }
  /// One run that fills caches and heaps, then `repeats` timed ones.
  void time(const std::string& name, const Work& work, const std::function<void()>& f) {
    time_in_turn({{name, work, f}});
  }
  /// The same for several pieces, A B A B, whose times are to be compared: a machine is not equally
  /// fast from minute to minute.
  void time_in_turn(const std::vector<Piece>& pieces);
  /// The same for work that may be long: no run goes before, and there are no more rounds than fit
  /// into so many seconds for each piece, but one. Peak memory is that of the tensors that a piece
  /// makes. The rows that it adds, until there are more.
  std::span<BenchRow> time_rounds(const std::vector<Piece>& pieces, double seconds);
  /// A row that was measured elsewhere.
  void add(BenchRow row) { rows_.push_back(std::move(row)); }

  /// An Error unless a and b differ by no more than rounding in the precision does
  /// (docs/precision.md): a wrong result has no speed. A mean that is no more than `least` will do.
  void check_close(const std::string& what, const Tensor& a, const Tensor& b,
                   double least = 0) const;

  const std::vector<BenchRow>& rows() const { return rows_; }
  /// GFLOP/s of the best product of each of those trials, in order.
  const std::vector<double>& products() const { return products_; }
  double best_product() const;

 private:
  int64_t repeats_, trials_;
  std::string only_;
  Device device_;
  Precision precision_;
  std::unique_ptr<Clock> clock_;
  std::vector<BenchRow> rows_;
  std::vector<double> products_;
};

/// GFLOP/s of the best of some large matrix products on a whole device, of random operands in that
/// precision: what it gives at best right now.
double product_peak(Device device, Precision precision, int64_t trials);

/// GB/s of the best of some passes over a buffer much larger than any cache: sums on all threads of
/// the CPU, copies within another device, whose reads and writes both count.
double memory_bandwidth(Device device, int64_t trials);

/// Reads all of a tensor on all threads. Returns the sum of its 64-bit words.
uint64_t sum_of_words(const Tensor& tensor);

/// The root of the mean of squares.
double mean_size(const Tensor& x);

/// Normal numbers in F32, the same for the same seed.
Tensor random_values(const Shape& shape, uint64_t seed = 1);
std::vector<int32_t> random_ids(int64_t count, int64_t vocab);

}  // namespace regla::app
