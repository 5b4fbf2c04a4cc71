#pragma once

#include <functional>
#include <string>
#include <vector>

#include "app/bench/measurements.h"
#include "autograd/tape.h"

namespace regla::app {

using Function = std::function<Vars(const Vars&)>;

/// A differentiable function to be timed.
struct OpCase {
  std::string name;
  Work work;           // forward and backward
  std::string types;   // of the inputs, A or S (backends/kernels.h)
  Tensors inputs;      // F32, on the CPU; gradients of all of them are computed
  Function f;          // what is timed
  Function reference;  // what it must agree with in double on the CPU; by default f itself
  std::vector<size_t> decays = {};  // which of the inputs: their gradients nearly cancel
};

/// The case on the device that is measured, in its precision.
class PlacedOp {
 public:
  PlacedOp(const OpCase& op, const Measurements& out);

  /// An Error unless values and gradients are those in double on the CPU.
  void check(const Measurements& out) const;
  void run_forward() const { op_.f({inputs_.begin(), inputs_.end()}); }
  /// Forward and backward.
  void run() const;

 private:
  const OpCase& op_;
  Tensors inputs_;
  Tensors seeds_;  // gradients of the values; none where there is one number, a loss
};

/// Checks the case, then times it forward and backward.
void measure(const OpCase& op, Measurements& out);

/// f of every element.
Tensor mapped(const Tensor& x, float (*f)(float));

struct RecurrenceSizes {
  int64_t batch, length, heads, head;  // features and values of a head
};
/// The recurrences with each decay, and softmax attention.
std::vector<OpCase> recurrence_cases(const RecurrenceSizes& sizes);

}  // namespace regla::app
