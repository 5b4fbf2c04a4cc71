#include "app/bench/op_case.h"

#include <algorithm>

#include "autograd/ops.h"
#include "backends/copies.h"

namespace regla::app {
namespace {

/// The values of f, then the gradients of its inputs for gradients `seeds` of the values; none: the
/// value is a loss.
Tensors differentiated(const Function& f, const Tensors& inputs, const Tensors& seeds) {
  Tape tape;
  Vars leaves;
  for (const Tensor& input : inputs) leaves.push_back(tape.leaf(input));
  const Vars values = f(leaves);
  if (seeds.empty()) {
    tape.backward(values.at(0));
  } else {
    tape.backward(values, seeds);
  }
  Tensors results;
  for (const Var& value : values) results.push_back(value.value);
  for (const Var& leaf : leaves) results.push_back(tape.gradient(leaf));
  return results;
}

/// What the gradient of a decay, a sum of differences that nearly cancels, may be off by in BF16:
/// 2e-2 of it, or 1e-2 of the largest among the gradients (docs/precision.md).
double least_of_decay(const Tensors& gradients, size_t which, Precision precision) {
  if (precision != Precision::Bf16) return 0;
  double least = 2e-2 * mean_size(gradients[which]);
  for (const Tensor& gradient : gradients) least = std::max(least, 1e-2 * mean_size(gradient));
  return least;
}

}  // namespace

PlacedOp::PlacedOp(const OpCase& op, const Measurements& out) : op_(op) {
  const DType A = activation_type(out.precision());
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const DType dtype = op.types.at(i) == 'A' ? A : sum_type(A);
    inputs_.push_back(converted(op.inputs[i], dtype).on(out.device()));
  }
  const Vars values = op.f({inputs_.begin(), inputs_.end()});
  if (values.at(0).value.numel() == 1) return;
  for (size_t i = 0; i < values.size(); ++i) {
    const Tensor& y = values[i].value;
    seeds_.push_back(converted(random_values(y.shape(), 9 + i), y.dtype()).on(out.device()));
  }
}

void PlacedOp::check(const Measurements& out) const {
  const auto in_double = [](const Tensors& all) {
    Tensors exact;
    for (const Tensor& x : all) exact.push_back(converted(x.on({}), DType::F64));
    return exact;
  };
  const Tensors exact =
      differentiated(op_.reference ? op_.reference : op_.f, in_double(inputs_), in_double(seeds_));
  const Tensors results = differentiated(op_.f, inputs_, seeds_);
  const size_t values = results.size() - inputs_.size();
  const Tensors gradients(exact.begin() + static_cast<std::ptrdiff_t>(values), exact.end());
  for (size_t i = 0; i < results.size(); ++i) {
    const bool is_value = i < values;
    const size_t of = is_value ? i : i - values;
    const std::string what = (is_value ? "value " : "gradient of input ") + std::to_string(of + 1);
    const bool is_decay = !is_value && std::count(op_.decays.begin(), op_.decays.end(), of) > 0;
    out.check_close(op_.name + ", " + what + ", and in double", results[i], exact[i],
                    is_decay ? least_of_decay(gradients, of, out.precision()) : 0);
  }
}

void PlacedOp::run() const { differentiated(op_.f, inputs_, seeds_); }

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
