#include "autograd/ops/op.h"

namespace regla {
namespace {

/// The mask is not kept: backward draws the same numbers again.
struct Dropout : Op {
  double rate;
  DropoutKey key;
  Dropout(double probability, const DropoutKey& numbers) : rate(probability), key(numbers) {}
  const char* name() const override { return "dropout"; }

  DropoutArgs args(const Tensor& x) const {
    return {.x = x, .rate = rate, .seed = key.seed, .stream = key.stream, .first = key.first};
  }

  Tensors forward(const Tensors& in) override {
    Tensor y = Tensor::empty_like(in[0]);
    kernels_of(y).dropout(args(in[0]), Sink{y});
    return {y};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    kernels_of(d_out[0]).dropout(args(d_out[0]), d_in[0]->sink(d_out[0]));
  }
};

}  // namespace

Var dropout(const Var& x, double rate, const DropoutKey& key) {
  check_float("dropout", "x", x);
  check(rate >= 0 && rate < 1, "[dropout] expected a rate in [0, 1), got ", rate);
  return rate == 0 ? x : apply(Dropout(rate, key), {x})[0];
}

}  // namespace regla
