#include "app/bench/op_case.h"

#include <algorithm>

#include "autograd/ops.h"
#include "backends/copies.h"

namespace regla::app {
namespace {

/// The value of f, then the gradients of its inputs for a gradient `seed` of the value; undefined:
/// the value is a loss.
Tensors differentiated(const Function& f, const Tensors& inputs, const Tensor& seed) {
  Tape tape;
  Vars leaves;
  for (const Tensor& input : inputs) leaves.push_back(tape.leaf(input));
  const Var y = f(leaves);
  if (seed) {
    tape.backward({y}, {seed});
  } else {
    tape.backward(y);
  }
  Tensors results = {y.value};
  for (const Var& leaf : leaves) results.push_back(tape.gradient(leaf));
  return results;
}

/// What the gradient of a decay, a sum of differences that nearly cancels, may be off by in BF16:
/// 2e-2 of it, or 1e-2 of the largest among the gradients (docs/precision.md).
double least_of_decays(const Tensors& exact, size_t which, Precision precision) {
  if (precision != Precision::Bf16) return 0;
  double least = 2e-2 * mean_size(exact[which]);
  for (size_t i = 1; i < exact.size(); ++i) least = std::max(least, 1e-2 * mean_size(exact[i]));
  return least;
}

}  // namespace

PlacedOp::PlacedOp(const OpCase& op, const Measurements& out) : op_(op) {
  const DType A = activation_type(out.precision());
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const DType dtype = op.types.at(i) == 'A' ? A : sum_type(A);
    inputs_.push_back(converted(op.inputs[i], dtype).on(out.device()));
  }
  const Tensor y = op.f({inputs_.begin(), inputs_.end()}).value;
  if (y.numel() > 1) seed_ = converted(random_values(y.shape(), 9), y.dtype()).on(out.device());
}

void PlacedOp::check(const Measurements& out) const {
  const auto in_double = [](const Tensor& x) {
    return x ? converted(x.on({}), DType::F64) : Tensor{};
  };
  Tensors exact;
  for (const Tensor& input : inputs_) exact.push_back(in_double(input));
  exact = differentiated(op_.reference ? op_.reference : op_.f, exact, in_double(seed_));
  const Tensors results = differentiated(op_.f, inputs_, seed_);
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string what = i == 0 ? "value" : "gradient of input " + std::to_string(i);
    const bool is_decay = i + op_.decays >= results.size();
    out.check_close(op_.name + ", " + what + ", and in double", results[i], exact[i],
                    is_decay ? least_of_decays(exact, i, out.precision()) : 0);
  }
}

void PlacedOp::run() const { differentiated(op_.f, inputs_, seed_); }

void measure(const OpCase& op, Measurements& out) {
  if (!out.wants(op.name)) return;
  const PlacedOp placed(op, out);
  placed.check(out);
  out.time(op.name, op.work, [&] { placed.run(); });
}

Tensor mapped(const Tensor& x, float (*f)(float)) {
  Tensor y = Tensor::empty_like(x);
  std::transform(x.data<float>(), x.data<float>() + x.numel(), y.data<float>(), f);
  return y;
}

}  // namespace regla::app
