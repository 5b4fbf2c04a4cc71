#include "autograd/ops/cell.h"

#include <string>

namespace regla {
namespace {

Tensors tensors_of(const Vars& vars) {
  Tensors tensors;
  for (const Var& x : vars) tensors.push_back(x.value);
  return tensors;
}

struct CellOp : Op {
  CellTraits cell;
  const CellKernels& kernels;
  CellArgs args;
  RecurrenceResult result;

  CellOp(const CellTraits& traits, const CellKernels& of, CellArgs settings)
      : cell(traits), kernels(of), args(std::move(settings)) {}
  const char* name() const override { return cell.name; }

  /// Calls f(number among all inputs, input) for keys, values and scalars.
  template <class F>
  void each_input(F&& f) {
    size_t number = 0;
    for (Tensors* list : {&args.keys, &args.values, &args.scalars}) {
      for (Tensor& x : *list) f(number++, x);
    }
  }

  Tensors forward(const Tensors& in) override {
    each_input([&](size_t i, Tensor& x) { x = in[i]; });
    args.state = in.back();
    args.keep = Tape::current() != nullptr;
    const Tensor o = Tensor::empty_like(args.values[0]);
    const int64_t K = args.keys.empty() ? 1 : args.keys[0].dim(3);
    const Shape state = {o.dim(0), o.dim(2), K, o.dim(3)};
    result = {o, Tensor::empty(state, sum_type(o.dtype()), o.device()), {}};
    kernels.forward(args, result);
    return {result.o, result.state};
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    CellGradients to = {.d_o = d_out[0] ? d_out[0] : Tensor::zeros_like(args.values[0]),
                        .d_state = d_out[1],
                        .d_keys = {},
                        .d_values = {},
                        .d_scalars = {},
                        .d_state0 = args.state ? d_in.back()->sink(args.state) : Sink{}};
    const size_t keys = args.keys.size(), values = keys + args.values.size();
    each_input([&](size_t i, const Tensor& x) {
      auto& list = i < keys ? to.d_keys : i < values ? to.d_values : to.d_scalars;
      list.push_back(x ? d_in[i]->sink(x) : Sink{});
    });
    kernels.backward(args, result, to);
  }

  Tensor* kept_input(size_t input) override {
    Tensor* found = nullptr;
    each_input([&](size_t i, Tensor& x) {
      if (i == input) found = &x;
    });
    return found;
  }
};

/// Where keys, values and scalars are all of one shape each, of the type of activations or of sums.
void check_inputs(const CellTraits& cell, const CellInputs& in, const Tensor& reset,
                  const Var& state) {
  const char* op = cell.name;
  const auto check_count = [&](const char* what, const Vars& list, recurrence::Count count) {
    check(list.size() == count.all(), "[", op, "] expected ", count.all(), " ", what, ", got ",
          list.size());
  };
  check_count("keys", in.keys, cell.keys);
  check_count("values", in.values, cell.values);
  check_count("scalars", in.scalars, cell.scalars);
  const Var& v = in.values[0];
  check_rank(op, "values", v, 4);
  if (!in.keys.empty()) check_rank(op, "keys", in.keys[0], 4);
  const int64_t B = v.dim(0), steps = v.dim(1), H = v.dim(2);
  const int64_t K = in.keys.empty() ? 1 : in.keys[0].dim(3);
  check(steps > 0, "[", op, "] expected at least one token, got ", v.shape());
  const auto check_list = [&](const char* what, const Vars& list, recurrence::Count count,
                              const Shape& shape, DType dtype) {
    for (size_t i = 0; i < list.size(); ++i) {
      const bool is_decay = i >= static_cast<size_t>(count.plain);
      if (list[i].defined() || !is_decay) check_same(op, what, list[i], shape, dtype);
    }
  };
  const DType A = v.value.dtype();
  check_list("keys", in.keys, cell.keys, {B, steps, H, K}, A);
  check_list("values", in.values, cell.values, v.shape(), A);
  check_list("scalars", in.scalars, cell.scalars, {B, steps, H}, sum_type(A));
  if (reset) check_indices(op, "reset", reset, {B, steps});
  if (state.defined()) check_sum(op, "state", state, {B, H, K, v.dim(3)}, A);
}

CellArgs args_of(const CellInputs& in) {
  CellArgs args{};
  args.keys = tensors_of(in.keys);
  args.values = tensors_of(in.values);
  args.scalars = tensors_of(in.scalars);
  return args;
}

}  // namespace

Recurrence run_cell(const CellTraits& cell, const CellKernels& kernels, const CellInputs& inputs,
                    const Tensor& reset, const Var& state) {
  check_inputs(cell, inputs, reset, state);
  CellArgs args = args_of(inputs);
  args.reset = reset;
  Vars all = inputs.keys;
  all.insert(all.end(), inputs.values.begin(), inputs.values.end());
  all.insert(all.end(), inputs.scalars.begin(), inputs.scalars.end());
  all.push_back(state);
  const Vars out = regla::apply(CellOp(cell, kernels, std::move(args)), all);
  return {out[0], out[1]};
}

Tensor run_cell_step(const CellTraits& cell, const CellKernels& kernels, const CellInputs& inputs,
                     Tensor state) {
  check(state.defined(), "[", cell.name, "] expected a state");
  check_inputs(cell, inputs, {}, Var(state));
  const Tensor& v = inputs.values[0].value;
  check(v.dim(1) == 1, "[", cell.name, "] expected one token, got ", v.shape());
  check(Tape::current() == nullptr, "[", cell.name, "] a step has no gradient");
  CellArgs args = args_of(inputs);
  args.state = state;
  RecurrenceResult result = {Tensor::empty_like(v), std::move(state), {}};
  kernels.forward(args, result);
  return result.o;
}

}  // namespace regla
