#include "autograd/recompute.h"

namespace regla {
namespace {

/// The last input is no argument of f: see `recompute`.
struct Recompute : Op {
  VarFunction f;
  bool checks_finite;
  Tensors arguments;
  Recompute(VarFunction function, bool checks) : f(std::move(function)), checks_finite(checks) {}
  const char* name() const override { return "recompute"; }

  Tensors forward(const Tensors& in) override {
    arguments.assign(in.begin(), in.end() - 1);
    Tensors values;
    for (const Var& out : unrecorded()) values.push_back(out.value);
    return values;
  }

  void backward(Tensors& d_out, std::vector<Gradient*>& d_in) override {
    Tape tape;
    tape.check_finite(checks_finite);
    Vars in;
    for (size_t i = 0; i < arguments.size(); ++i) {
      in.push_back(d_in[i]->wanted() ? tape.leaf(arguments[i]) : Var(arguments[i]));
    }
    tape.backward(f(in), std::move(d_out));
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (in[i].index < 0) continue;
      Tensor d = tape.take_gradient(in[i]);
      if (d) d_in[i]->give(std::move(d));
    }
  }

 private:
  Vars unrecorded() {
    const Vars in(arguments.begin(), arguments.end());
    if (checks_finite) {  // only what a tape sees is checked; this one goes at once
      Tape tape;
      tape.check_finite(true);
      return f(in);
    }
    const NoGrad guard;
    return f(in);
  }
};

}  // namespace

Vars recompute(const VarFunction& f, const Vars& in) {
  Tape* tape = Tape::current();
  if (tape == nullptr) return f(in);
  // Parameters are no inputs, but want their gradients even where no input does: a leaf without a
  // value has the op recorded in any case.
  Vars with_leaf = in;
  with_leaf.push_back(tape->leaf({}));
  return regla::apply(std::make_unique<Recompute>(f, tape->checks_finite()), with_leaf);
}

}  // namespace regla
