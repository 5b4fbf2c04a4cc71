#include <algorithm>

#include "autograd/ops/sliced_loss.h"

namespace regla {
namespace {

struct CrossEntropy : SlicedLoss {
  Tensor targets;
  CrossEntropy(Tensor rows, double factor) : SlicedLoss(factor), targets(std::move(rows)) {}
  const char* name() const override { return "cross_entropy"; }

  void visit(const Tensor& rows, const Tensor& weight, const Tensor& losses) override {
    kernels_of(rows).cross_entropy({rows, weight, targets, inverse_count}, losses, d_hidden,
                                   d_weight);
  }
};

}  // namespace

Var cross_entropy(const Var& hidden, const Var& weight, const Tensor& targets, int64_t count) {
  check_scores("cross_entropy", hidden, weight, targets);
  if (count == 0) {
    for (double target : targets.values()) count += target >= 0;
    count = std::max<int64_t>(count, 1);
  }
  const Tensor rows = targets.reshape({targets.numel()});
  return apply(CrossEntropy(rows, 1.0 / static_cast<double>(count)), {hidden, weight})[0];
}

Tensor cross_entropy_rows(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  check_scores("cross_entropy_rows", hidden, weight, targets);
  Tensor losses = Tensor::empty(targets.shape(), sum_type(hidden.dtype()), hidden.device());
  const Tensor rows = targets.reshape({targets.numel()});
  kernels_of(hidden).cross_entropy({as_rows(hidden), weight, rows, 1},
                                   losses.reshape({losses.numel()}), {}, {});
  return losses;
}

}  // namespace regla
