#include "autograd/ops/sliced_loss.h"

namespace regla {
namespace {

struct Distillation : SlicedLoss {
  Tensor teacher_hidden, teacher_weight, targets;
  double temperature;
  Distillation(Tensor hidden, Tensor weight, Tensor rows, double t, double factor)
      : SlicedLoss(factor),
        teacher_hidden(std::move(hidden)),
        teacher_weight(std::move(weight)),
        targets(std::move(rows)),
        temperature(t) {}
  const char* name() const override { return "distillation"; }

  void visit(const Tensor& rows, const Tensor& weight, const Tensor& losses) override {
    kernels_of(rows).distillation({.hidden = rows,
                                   .weight = weight,
                                   .teacher_hidden = teacher_hidden,
                                   .teacher_weight = teacher_weight,
                                   .targets = targets,
                                   .temperature = temperature,
                                   .scale = inverse_count},
                                  losses, d_hidden, d_weight);
    teacher_hidden = {};
  }
};

}  // namespace

Var distillation(const Var& hidden, const Var& weight, const Tensor& teacher_hidden,
                 const Tensor& teacher_weight, const Tensor& targets, double temperature,
                 int64_t count) {
  const char* const op = "distillation";
  check_scores(op, hidden, weight, targets);
  check_scores(op, teacher_hidden, teacher_weight, targets);
  check_same(op, "weight", weight, weight.shape(), hidden.value.dtype());  // not one that is stored
  check_same(op, "the teacher's weight", teacher_weight, {weight.dim(0), teacher_weight.dim(1)},
             hidden.value.dtype());
  check_same(op, "the teacher's hidden values", teacher_hidden, teacher_hidden.shape(),
             hidden.value.dtype());
  check(temperature > 0, "[", op, "] expected a temperature above 0, got ", temperature);
  check(count > 0, "[", op, "] expected a count above 0, got ", count);
  return apply(
      Distillation(as_rows(teacher_hidden), teacher_weight, targets.reshape({targets.numel()}),
                   temperature, 1.0 / static_cast<double>(count)),
      {hidden, weight})[0];
}

}  // namespace regla
