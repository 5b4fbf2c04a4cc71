#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "tests/support.h"

// What a sample of an op and a refused call consist of, and how a sample is run; the lists are
// all_ops.h and wrong_calls.h.
namespace regla::test {

/// One input of a sample: distinct values, spaced evenly in (low, high); integers begin as 0.
struct Input {
  Shape shape;
  double low = -2, high = 2;
  bool differentiable = true;
  /// Replaces the values where given; they are in F32, or integers.
  std::function<void(Tensor&)> edit = {};
  std::optional<DType> type = {};  // none: as the sample is run
  bool is_sum = false;             // then of the type of sums, not of activations

  bool is_float() const { return type != DType::I32; }
};

/// Ids, targets, positions or a mask, as they are.
inline Input integers(const Tensor& values) {
  return {.shape = values.shape(),
          .differentiable = false,
          .edit = [=](Tensor& x) { x.copy_from(values); },
          .type = DType::I32};
}
/// An input without a gradient, in one type whatever the sample is run in.
inline Input constant(const Shape& shape, DType type) {
  return {.shape = shape, .differentiable = false, .type = type};
}

/// One of the type of sums (S in backends/kernels.h).
inline Input sums(const Shape& shape, double low = -2, double high = 2) {
  return {.shape = shape, .low = low, .high = high, .is_sum = true};
}
/// One that nobody reads: it tells the type of activations where all others are sums.
inline Input activations() { return {.shape = {1}, .differentiable = false}; }
inline DType type_of(const Var& x) { return x.value.dtype(); }

/// A, S or D (backends/kernels.h) beside activations of that type.
inline DType type_named(char letter, DType activations) {
  return letter == 'D' ? DType::F64 : letter == 'S' ? sum_type(activations) : activations;
}

struct OpSample {
  std::string op;             // the function in autograd/ops.h
  std::string flags;          // what this sample is about
  std::vector<Input> inputs;  // every tensor there is, so that it runs on any device
  /// The op; an entry that is undefined is an absent optional output.
  std::function<Vars(const Vars&)> apply;
  std::string types = {};  // of the outputs, as in backends/kernels.h; empty: all A

  std::string name() const { return op + ", " + flags; }

  Tensors make(DType dtype, Device device = {}) const {
    Tensors values;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Input& in = inputs[i];
      Tensor value = in.is_float() ? spaced_tensor(in.shape, DType::F32, 11 + i, in.low, in.high)
                                   : Tensor::zeros(in.shape, DType::I32);
      if (in.edit) in.edit(value);
      const DType own = in.is_sum ? sum_type(dtype) : dtype;
      values.push_back(converted(value, in.type.value_or(own)).on(device));
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
    d.push_back(out.defined()
                    ? normal_tensor(out.shape(), out.value.dtype(), seed++).on(out.value.device())
                    : Tensor{});
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

/// Adds calls to a list.
struct Refusals {
  std::vector<WrongCall>& list;

  void operator()(const std::string& op, const std::string& flags,
                  std::function<void()> call) const {
    list.push_back({op, flags, std::move(call)});
  }
};

inline Var f32(const Shape& shape) { return Tensor::zeros(shape, DType::F32); }
inline Var f64(const Shape& shape) { return Tensor::zeros(shape, DType::F64); }
inline Var bf16(const Shape& shape) { return Tensor::zeros(shape, DType::BF16); }
inline Tensor i32(const Shape& shape) { return Tensor::zeros(shape, DType::I32); }

}  // namespace regla::test
