// The kernels of an update, by name.

#include <algorithm>
#include <map>
#include <string>

#include "app/bench/cases.h"
#include "app/bench/training.h"
#include "backends/kernel_observer.h"

namespace regla::app {
namespace {

/// The bytes of the tensors of a call: about what it must move.
double bytes_of(const KernelCall& call) {
  double bytes = 0;
  for (const Tensor& tensor : call.tensors) {
    if (tensor) bytes += static_cast<double>(tensor.bytes());
  }
  return bytes;
}

/// Notes when every kernel begins and ends.
class KernelTimes : public KernelObserver {
 public:
  using Rows = std::map<std::string, BenchRow>;

  explicit KernelTimes(Device device) : clock_(make_clock(device)) {}

  void begins(const KernelCall& call) override {
    if (is_over_) calls_.clear();
    is_over_ = false;
    Call noted = {.name = call.kernel, .bytes = bytes_of(call)};
    if (noted.name == "matmul") describe_product(call, noted);
    if (noted.name == "linear_backward") describe_gradients(call, noted);
    noted.from = clock_->note();
    calls_.push_back(noted);
  }
  void ended() override { calls_.back().to = clock_->note(); }

  /// Adds the times of an update that ended to the rows. The device recorded it, or it was called.
  void add_to(Rows& rows) {
    Rows update;
    for (const Call& call : calls_) {
      const auto [place, is_new] = update.try_emplace(call.name);
      BenchRow& row = place->second;
      row.calls = is_new ? 1 : row.calls + 1;
      row.work.flops += call.flops;
      row.work.bytes += call.bytes;
      row.seconds.resize(1);
      row.seconds[0] += clock_->seconds(call.from, call.to);
    }
    for (auto& [name, row] : update) {
      const auto [place, is_new] = rows.try_emplace(name, row);
      if (!is_new) place->second.seconds.push_back(row.seconds[0]);
    }
    is_over_ = true;
  }

 private:
  struct Call {
    std::string name;
    double bytes, flops = 0;
    int64_t from = 0, to = 0;
  };

  /// Products of one size take the same time.
  static void describe_product(const KernelCall& call, Call& noted) {
    const Tensor &a = call.tensors[0], &out = call.tensors[3];
    const int64_t M = out.dim(0), N = out.dim(1), K = M == 0 ? 0 : a.numel() / M;
    noted.flops = 2.0 * static_cast<double>(M) * static_cast<double>(N * K);
    noted.name += " " + std::to_string(M) + "x" + std::to_string(N) + " over " + std::to_string(K) +
                  " " + std::string(name_of(out.dtype()));
  }

  /// Two products of each layer's weight, as far as gradients are wanted.
  static void describe_gradients(const KernelCall& call, Call& noted) {
    // Behind x and what lies side by side; of each part d_y, weight, d_weight, d_bias.
    constexpr size_t kFirst = 2, kLetters = 4;
    const Tensor &x = call.tensors.front(), &d_x = call.tensors.back();
    for (size_t i = kFirst; i + kLetters < call.tensors.size(); i += kLetters) {
      const auto weights = static_cast<double>(call.tensors[i + 1].numel());
      const double products = (d_x ? 1 : 0) + (call.tensors[i + 2] ? 1 : 0);
      noted.flops += 2 * products * static_cast<double>(x.dim(0)) * weights;
    }
    noted.name += " " + std::to_string((call.tensors.size() - kFirst - 1) / kLetters) + " of " +
                  std::to_string(x.dim(1));
  }

  std::unique_ptr<Clock> clock_;
  std::vector<Call> calls_;
  bool is_over_ = false;  // the next call is of another update
};

}  // namespace

void bench_step(const BenchOptions& options, Measurements& out) {
  bench_train(options, out);
  Training training(options.training(), out.device());
  KernelTimes times(out.device());
  KernelTimes::Rows rows, others;
  // The first update is called, the second recorded where the device can do that.
  for (int64_t i = 0; i < 2 + out.repeats(); ++i) {
    training.trainer.step();
    training.trainer.finish();
    times.add_to(i < 2 ? others : rows);
  }
  std::vector<BenchRow> sorted;
  BenchRow all{.name = "all kernels",
               .work = {},
               .seconds = std::vector<double>(rows.begin()->second.seconds.size()),
               .calls = 0};
  for (auto& [name, row] : rows) {
    row.name = name;
    for (size_t i = 0; i < row.seconds.size(); ++i) all.seconds[i] += row.seconds[i];
    all.calls += row.calls;
    std::sort(row.seconds.begin(), row.seconds.end());
    sorted.push_back(std::move(row));
  }
  std::sort(all.seconds.begin(), all.seconds.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const BenchRow& a, const BenchRow& b) { return a.quantile(0.5) > b.quantile(0.5); });
  out.add(std::move(all));
  for (BenchRow& row : sorted) out.add(std::move(row));
}

}  // namespace regla::app
