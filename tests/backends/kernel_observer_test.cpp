// Who observes kernels is told of each call, and clocks tell how long it took.

#include "backends/kernel_observer.h"

#include "backends/backend.h"
#include "tests/matchers.h"
#include "tests/support.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

/// Writes down what it is told.
class Notes : public KernelObserver {
 public:
  std::vector<std::string> calls;

  void begins(const KernelCall& call) override {
    std::string text = call.kernel;
    for (const Tensor& tensor : call.tensors) {
      text += tensor ? " " + tensor.shape().text() : " none";
    }
    calls.push_back(text);
  }
  void ended() override { calls.emplace_back("ended"); }
};

}  // namespace

TEST_CASE("an observer is told of every kernel but those that kernels ask for") {
  for (const Device device : {Device{}, walled_device()}) {
    const Tensor x = Tensor::full({2, 3}, 1, DType::F32, device), y = Tensor::empty_like(x);
    const Tensor w = Tensor::full({4, 3}, 1, DType::F32, device),
                 d_y = Tensor::full({2, 4}, 1, DType::F32, device);
    kernels(device).accumulate(x, 1, {y});
    Notes outer;
    {
      Notes notes;
      kernels(device).accumulate(x, 1, {y});
      kernels(device).linear_backward({.x = x, .parts = {{d_y, w, {}, {}}}}, {y});
      CHECK_THROWS(kernels(device).gelu(x, false, Tensor::empty({1}, DType::F64, device)));
      CHECK(notes.calls ==
            std::vector<std::string>{
                "accumulate " + x.shape().text() + " " + x.shape().text(), "ended",
                "linear_backward " + x.shape().text() + " none " + d_y.shape().text() + " " +
                    w.shape().text() + " none none " + x.shape().text(),
                "ended"});
    }
    CHECK(outer.calls.empty());
    kernels(device).sums_of_squares({x, {}}, Tensor::empty({2}, DType::F64, device));
    CHECK(outer.calls.size() == 2);
  }
}

TEST_CASE("a clock's seconds add up") {
  for (const Device device : {Device{}, walled_device()}) {
    const std::unique_ptr<Clock> clock = make_clock(device);
    std::vector<int64_t> notes;
    const Tensor x = Tensor::full({100'000}, 1, DType::F32, device);
    for (int i = 0; i < 3; ++i) {
      notes.push_back(clock->note());
      kernels(device).accumulate(x, 1, {x});
    }
    CHECK(notes == std::vector<int64_t>{0, 1, 2});
    CHECK(clock->seconds(0, 1) > 0);
    CHECK(clock->seconds(0, 2) == Approx(clock->seconds(0, 1) + clock->seconds(1, 2)));
  }
}

}  // namespace regla::test
