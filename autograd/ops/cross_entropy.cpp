#include <algorithm>

#include "autograd/ops/op.h"

namespace regla {
namespace {

/// One visit to the logits gives the loss and both gradients, so that backward only scales them.
struct CrossEntropy : Op {
  Tensor targets;
  double inverse_count;
  Tensor d_hidden, d_weight;
  Shape hidden_shape;
  CrossEntropy(Tensor rows, double factor) : targets(std::move(rows)), inverse_count(factor) {}
  const char* name() const override { return "cross_entropy"; }

  Tensors forward(const Tensors& in) override {
    hidden_shape = in[0].shape();
    const Tensor hidden = as_rows(in[0]);
    const DType sums = sum_type(hidden.dtype());
    Tensor losses = Tensor::empty({hidden.dim(0)}, sums, hidden.device());
    if (Tape::current() != nullptr) {
      d_hidden = Tensor::empty_like(hidden);
      d_weight = Tensor::empty(in[1].shape(), sums, in[1].device());
    }
    kernels_of(hidden).cross_entropy({hidden, in[1], targets, inverse_count}, losses, d_hidden,
                                     d_weight);
    Tensor loss = Tensor::empty({1}, DType::F64, hidden.device());
    kernels_of(hidden).sum(losses, inverse_count, loss);
    return {loss};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    pass_on(std::move(d_hidden), hidden_shape, d_out[0], *d_in[0]);
    pass_on(std::move(d_weight), {}, d_out[0], *d_in[1]);
  }

 private:
  /// Hands the stored gradient over as it is where backward begins, which is what training does.
  static void pass_on(Tensor stored, const Shape& shape, const Tensor& d_loss, Gradient& to) {
    if (shape.rank() > 0) stored = stored.reshape(shape);
    if (is_unit_seed(d_loss)) {
      to.give(std::move(stored));
    } else {
      kernels_of(stored).scale_by(stored, d_loss, to.sink(stored));
    }
  }
};

void check_arguments(const char* op, const Var& hidden, const Var& weight, const Tensor& targets) {
  check_float(op, "hidden", hidden);
  check_rank(op, "weight", weight, 2);
  check(hidden.value.numel() > 0, "[", op, "] expected at least one row, got ", hidden.shape());
  check_weight(op, hidden, weight, {weight.dim(0), hidden.dim(-1)});
  check_indices(op, "targets", targets, hidden.shape().drop_last());
}

}  // namespace

Var cross_entropy(const Var& hidden, const Var& weight, const Tensor& targets, int64_t count) {
  check_arguments("cross_entropy", hidden, weight, targets);
  if (count == 0) {
    for (double target : targets.values()) count += target >= 0;
    count = std::max<int64_t>(count, 1);
  }
  const Tensor rows = targets.reshape({targets.numel()});
  return apply(CrossEntropy(rows, 1.0 / static_cast<double>(count)), {hidden, weight})[0];
}

Tensor cross_entropy_rows(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  check_arguments("cross_entropy_rows", hidden, weight, targets);
  Tensor losses = Tensor::empty(targets.shape(), sum_type(hidden.dtype()), hidden.device());
  const Tensor rows = targets.reshape({targets.numel()});
  kernels_of(hidden).cross_entropy({as_rows(hidden), weight, rows, 1},
                                   losses.reshape({losses.numel()}), {}, {});
  return losses;
}

}  // namespace regla
