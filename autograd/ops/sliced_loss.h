#pragma once

#include <utility>

#include "autograd/ops/op.h"

namespace regla {

/// A mean over rows of hidden [..., D] of what their scores with a weight [vocab, D] cost. One
/// visit to the scores gives it and both gradients, so that backward only scales them.
struct SlicedLoss : Op {
  double inverse_count;
  Tensor d_hidden, d_weight;
  Shape hidden_shape;
  explicit SlicedLoss(double factor) : inverse_count(factor) {}

  /// Calls the kernel for `rows` [R, D]; gradients are undefined where nobody wants them.
  virtual void visit(const Tensor& rows, const Tensor& weight, const Tensor& losses) = 0;

  Tensors forward(const Tensors& in) override {
    hidden_shape = in[0].shape();
    const Tensor rows = as_rows(in[0]);
    const DType sums = sum_type(rows.dtype());
    const Tensor losses = Tensor::empty({rows.dim(0)}, sums, rows.device());
    if (Tape::current() != nullptr) {
      d_hidden = Tensor::empty_like(rows);
      d_weight = Tensor::empty(in[1].shape(), sums, in[1].device());
    }
    visit(rows, in[1], losses);
    Tensor loss = Tensor::empty({1}, DType::F64, rows.device());
    kernels_of(rows).sum(losses, inverse_count, loss);
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

/// An Error that begins with the op's name unless those go together.
inline void check_scores(const char* op, const Var& hidden, const Var& weight,
                         const Tensor& targets) {
  check_float(op, "hidden", hidden);
  check_rank(op, "weight", weight, 2);
  check(hidden.value.numel() > 0, "[", op, "] expected at least one row, got ", hidden.shape());
  check_weight(op, hidden, weight, {weight.dim(0), hidden.dim(-1)});
  check_indices(op, "targets", targets, hidden.shape().drop_last());
}

}  // namespace regla
