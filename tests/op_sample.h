#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "tests/support.h"

// What a sample of an op and a refused call consist of, and how a sample is run; the lists are
// all_ops.h and wrong_calls.h.
namespace regla::test {

/// One floating-point input of a sample: distinct values, spaced evenly in (low, high).
struct Input {
  Shape shape;
  double low = -2, high = 2;
  bool differentiable = true;
  /// Replaces the values where given.
  std::function<void(Tensor&)> edit = {};
  char type = 'A';  // of activations, or of sums: 'S' (backends/kernels.h)
};

/// One of the type of sums.
inline Input sums(const Shape& shape, double low = -2, double high = 2) {
  return {shape, low, high, true, {}, 'S'};
}
/// One that nobody reads: its type is that of activations where all other inputs are sums.
inline Input activations() { return {{1}, -2, 2, false}; }
inline DType type_of(const Var& x) { return x.value.dtype(); }

inline DType type_named(char letter, DType activations) {
  return letter == 'S' ? sum_type(activations) : activations;
}

struct OpSample {
  std::string op;     // the function in autograd/ops.h
  std::string flags;  // what this sample is about
  std::vector<Input> inputs;
  /// The op; an entry that is undefined is an absent optional output.
  std::function<Vars(const Vars&)> apply;
  std::string types = {};  // of the outputs, as in backends/kernels.h; empty: all A

  std::string name() const { return op + ", " + flags; }

  Tensors make(DType dtype) const {
    Tensors values;
    for (size_t i = 0; i < inputs.size(); ++i) {
      Tensor value =
          spaced_tensor(inputs[i].shape, DType::F32, 11 + i, inputs[i].low, inputs[i].high);
      if (inputs[i].edit) inputs[i].edit(value);
      values.push_back(converted(value, type_named(inputs[i].type, dtype)));
    }
    return values;
  }
};

/// The sample's inputs on a tape; those that are not differentiable are constants.
inline Vars leaves(Tape& tape, const OpSample& sample, const Tensors& values) {
  Vars in;
  for (size_t i = 0; i < values.size(); ++i) {
    in.push_back(sample.inputs[i].differentiable ? tape.leaf(values[i]) : Var(values[i]));
  }
  return in;
}

/// A random gradient for every output that has one to take.
inline Tensors cotangents(const Vars& outputs, uint64_t seed) {
  Tensors d;
  for (const Var& out : outputs) {
    d.push_back(out.defined() ? normal_tensor(out.shape(), out.value.dtype(), seed++) : Tensor{});
  }
  return d;
}

struct Result {
  Tensors outputs, gradients;
};

/// Outputs, and the gradients of the inputs in `wanted` (empty: all) for what `seeds` gives as
/// those of the outputs.
inline Result run(const OpSample& sample, const Tensors& values,
                  const std::function<Tensors(const Vars&)>& seeds,
                  const std::set<size_t>& wanted = {}) {
  Tape tape;
  Vars in = leaves(tape, sample, values);
  for (size_t i = 0; i < in.size(); ++i) {
    if (!wanted.empty() && wanted.count(i) == 0) in[i].index = -1;
  }
  const Vars out = sample.apply(in);
  tape.backward(out, seeds(out));
  Result result;
  for (const Var& var : out) result.outputs.push_back(var.value);
  for (const Var& var : in) {
    result.gradients.push_back(var.index < 0 ? Tensor{} : tape.gradient(var));
  }
  return result;
}

/// The same for random gradients of the outputs.
inline Result run(const OpSample& sample, const Tensors& values, uint64_t seed,
                  const std::set<size_t>& wanted = {}) {
  return run(
      sample, values, [=](const Vars& out) { return cotangents(out, seed); }, wanted);
}

/// A call that must fail with an Error beginning with the op's name in brackets.
struct WrongCall {
  std::string op, flags;
  std::function<void()> call;
};

inline Var f32(const Shape& shape) { return Tensor::zeros(shape, DType::F32); }
inline Var f64(const Shape& shape) { return Tensor::zeros(shape, DType::F64); }
inline Var bf16(const Shape& shape) { return Tensor::zeros(shape, DType::BF16); }
inline Tensor i32(const Shape& shape) { return Tensor::zeros(shape, DType::I32); }

}  // namespace regla::test
